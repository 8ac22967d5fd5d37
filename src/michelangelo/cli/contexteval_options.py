"""The options that the verbs of `mactl contexteval` share."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

__all__ = ["corpus", "gate", "opened"]

_Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

corpus: Final[_Decorator] = click.option(
    "--corpus",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("corpus"),
    show_default=True,
    help="The folder with the corpus.",
)
gate: Final[_Decorator] = click.option(
    "--gate",
    "gate_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A fitted gate; the corpus' own gate.json if left out.",
)


def opened(engine: str) -> Any:
    """The engine that a word or a file names, or None; keys are looked up in the environment, by the names it gives."""
    named_engines = importlib.import_module("michelangelo.llm.scorer.named_engines")
    return named_engines.open_engine(engine, os.environ) if engine else None
