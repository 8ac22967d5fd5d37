"""The options that the verbs of `mactl tracebench` share."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from michelangelo.cli import options

__all__ = ["SETTINGS", "engines", "opened", "opened_judges", "settings", "store"]

_Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


SETTINGS: Final = ("alpha", "tolerance", "slice_tolerance", "every_slice", "power", "seed")
"""Names of the options that `settings` adds."""

store: Final[_Decorator] = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("traces"),
    show_default=True,
    help="The folder with the recordings.",
)


def settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a comparison is told."""
    for option in reversed(
        (
            click.option(
                "--alpha", type=options.SHARE, default="5%", show_default=True, help="Risk of any false alarm."
            ),
            click.option(
                "--tolerance", type=options.SHARE, default="3%", show_default=True, help="The drop that is accepted."
            ),
            click.option(
                "--slice-tolerance",
                type=options.SHARE,
                default="10%",
                show_default=True,
                help="The same within a slice.",
            ),
            click.option("--every-slice", is_flag=True, help="Pass only if every slice excludes such a drop too."),
            click.option(
                "--power",
                type=options.SHARE,
                default="80%",
                show_default=True,
                help="With which a drop counts as detectable.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Of permutations and resamples."),
        )
    ):
        command = option(command)
    return command


def engines(command: Callable[..., Any]) -> Callable[..., Any]:
    """Who judges and who embeds."""
    command = click.option(
        "--embedder", default="", metavar="ENGINE", help="For similarity; MiniLM, where installed, if left out."
    )(command)
    return click.option(
        "--judge",
        "judges",
        multiple=True,
        metavar="[NAME=]ENGINE",
        help="The engine of checks of type judge. Repeat for others by name.",
    )(command)


def opened(text: str) -> Any:
    """The engine that a word or a file names; keys are looked up in the environment, by the names that it gives."""
    return importlib.import_module("michelangelo.llm.scorer.named_engines").open_engine(text, os.environ)


def opened_judges(judges: tuple[str, ...], embedder: str) -> dict[str, Any]:
    """Judges and embedder by name, open."""
    texts = _texts(judges, embedder)
    found: dict[str, Any] = importlib.import_module("michelangelo.llm.scorer.named_engines").open_all(texts, os.environ)
    return found


def _texts(judges: tuple[str, ...], embedder: str) -> Mapping[str, str]:
    texts = {"embedder": embedder} if embedder else {}
    for judge in judges:
        name, equals, text = judge.partition("=")
        if equals and name.replace("-", "_").isidentifier():
            texts[name] = text
        else:
            texts["judge"] = judge
    return texts
