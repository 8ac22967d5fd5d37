"""Reports into files, each under a temporary name first. The kind is told by the name's ending."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import orjson

from michelangelo import errors
from michelangelo.llm.tracebench import comparison
from michelangelo.llm.tracebench.comparison import Comparison
from michelangelo.llm.tracebench.reporting import html, junit, markdown

__all__ = ["ENDINGS", "check", "write"]

ENDINGS: Final[Mapping[str, Callable[[Comparison, bool], bytes]]] = {
    ".html": lambda made, _: html.render(made).encode(),
    ".xml": lambda made, allows: junit.render(made, allows_inconclusive=allows),
    ".md": lambda made, _: markdown.render(made).encode(),
    ".json": lambda made, _: orjson.dumps(comparison.summary(made), option=orjson.OPT_INDENT_2) + b"\n",
}


def check(path: Path) -> None:
    """Raises SuiteError for a name that says no kind."""
    if path.suffix.lower() not in ENDINGS:
        raise errors.SuiteError(f"{path}: a report is one of {', '.join('*' + ending for ending in ENDINGS)}")


def write(made: Comparison, path: Path, *, allows_inconclusive: bool = False) -> None:
    """Raises SuiteError if it cannot be written."""
    check(path)
    data = ENDINGS[path.suffix.lower()](made, allows_inconclusive)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as e:
        raise errors.SuiteError(f"{path} cannot be written: {e.strerror or e}") from e
