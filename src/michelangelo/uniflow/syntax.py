"""Files of the user's as syntax trees, each parsed once per process as long as it does not change.

The packing of a source, its graph and its checks read the same files within milliseconds. The trees are shared: who
reads one does not change it.
"""

from __future__ import annotations

import ast
import functools
import os

from michelangelo.errors import SourceError

__all__ = ["parse"]

_MAX_FILES = 128


def parse(path: str) -> tuple[str, ast.Module]:
    """The text of a Python file, and its tree. SourceError with its line when it does not parse, or cannot be read."""
    try:
        status = os.stat(path)
        return _parse(path, status.st_mtime_ns, status.st_size)
    except SyntaxError as error:
        where = f"{path}, line {error.lineno}" if error.lineno else path
        line = f"\n    {error.text.strip()}" if error.text else ""
        raise SourceError(f"{where}: {type(error).__name__}: {error.msg}{line}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


@functools.lru_cache(maxsize=_MAX_FILES)
def _parse(path: str, _changed_ns: int, _size: int) -> tuple[str, ast.Module]:
    with open(path, "rb") as file:
        data = file.read()
    try:
        tree = ast.parse(data, path)
    except ValueError as error:  # null bytes, before Python 3.11.4
        raise SyntaxError(str(error)) from error
    return data.decode("utf-8-sig", errors="replace"), tree
