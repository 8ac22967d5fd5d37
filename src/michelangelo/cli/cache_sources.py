"""The source of a function or class in the packed source of a run, and how that of two runs differs."""

from __future__ import annotations

import ast
import difflib
import tempfile
from pathlib import Path
from typing import Any

from michelangelo import errors
from michelangelo.cli.connection import Connection
from michelangelo.client.client import Object
from michelangelo.uniflow import archive, source_tree

__all__ = ["Sources", "unified"]

_MAX_LINES = 200


class Sources:
    """The packed sources of one run; a context. Empty when the run, or its source, is gone."""

    def __init__(self, link: Connection, namespace: str, run: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="michelangelo-")
        self._run = run
        try:
            found = link.client.get("PipelineRun", run, namespace=namespace)
            self._unpack(link, found)
        except (errors.ApiError, errors.StorageError, errors.CodecError):
            # An explanation without source is still one.
            pass

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *exception: object) -> None:
        self._folder.cleanup()

    def find(self, file: str, qualname: str) -> tuple[list[str], int]:
        """The lines of a function, class or constant, and the number of the first; none when it is not there."""
        path = Path(self._folder.name) / file
        try:
            text = path.read_text(encoding="utf-8")
            node = _node(ast.parse(text), qualname.partition("#")[0].split("."))
        except (OSError, ValueError, SyntaxError):
            return [], 0
        if node is None:
            return [], 0
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(one.lineno for one in decorators)])
        return text.splitlines()[first - 1 : node.end_lineno], first

    def _unpack(self, link: Connection, run: Object) -> None:
        pinned = ((run.get("status") or {}).get("sourcePipeline") or {}).get("pipeline") or {}
        spec = pinned.get("spec") or run["spec"].get("pipelineSpec") or {}
        manifest = spec.get("manifest") or {}
        digest = str(manifest.get("uniflowTar") or manifest.get("sourceDigest") or "")
        if digest:
            with link.content.open_blob(digest) as stream:
                archive.unpack(stream, self._folder.name, max_bytes=source_tree.MAX_SOURCE_BYTES)


def unified(was: tuple[list[str], int], is_now: tuple[list[str], int], names: tuple[str, str]) -> str:
    """A unified diff with the lines' numbers in their files; empty where nothing is to be shown."""
    lines = list(difflib.unified_diff(was[0], is_now[0], *names, lineterm=""))
    shown = [_moved(line, was[1], is_now[1]) if line.startswith("@@") else line for line in lines]
    more = [f"… {len(shown) - _MAX_LINES} more lines"] if len(shown) > _MAX_LINES else []
    return "\n".join(shown[:_MAX_LINES] + more)


def _moved(header: str, was: int, is_now: int) -> str:
    """`@@ -1,3 +1,4 @@` counts from the function's first line."""
    _, old, new, _ = header.split(" ")

    def shifted(part: str, first: int) -> str:
        start, comma, count = part[1:].partition(",")
        return f"{part[0]}{int(start) + max(0, first - 1)}{comma}{count}"

    return f"@@ {shifted(old, was)} {shifted(new, is_now)} @@"


def _node(tree: ast.AST, names: list[str]) -> Any:
    """The definition of that qualified name; `<locals>` is no level of its own."""
    found: Any = tree
    for name in (one for one in names if one != "<locals>"):
        found = next((node for node in _definitions(found) if name in _names(node)), None)
        if found is None:
            return None
    return found


def _definitions(tree: ast.AST) -> list[ast.stmt]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node is not tree and _names(node)]


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [one.id for one in node.targets if isinstance(one, ast.Name)]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []
