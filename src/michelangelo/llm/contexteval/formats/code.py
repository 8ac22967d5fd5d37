"""Source code → blocks by structure: Python by its syntax tree, other languages by what begins at the margin.

The blocks with their gaps are the source itself, so a span of the extracted text is a span of the file.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import Final

from michelangelo.llm.contexteval.blocks import Block

__all__ = ["other_blocks", "python_blocks"]

_NAME: Final = re.compile(
    r"^\s*(?:(?:export|default|public|private|protected|static|abstract|final|async|pub(?:\([a-z]+\))?|unsafe|inline|"
    r"virtual|local|extern)\s+)*"
    r"(?:function|func|fn|def|class|struct|interface|trait|impl|enum|type|module|namespace|record|sub|proc)\s+"
    r"(?:\([^)]*\)\s*)?([A-Za-z_$][\w$]*)"
)
_SPLIT_LINES: Final = 60
"""A class of more lines is cut into its methods."""


def python_blocks(text: str) -> Iterator[Block]:
    """What is no Python is cut as other code is."""
    try:
        with warnings.catch_warnings():
            # Of the source that is read, such as an invalid escape in a string.
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from other_blocks(text)
        return
    # ast counts lines by \n, \r and form feeds alike; the text has only \n by now.
    lines = text.split("\n")
    cuts = [(0, ()), *_cuts(tree.body, ())]
    yield from _slices(lines, cuts)


def other_blocks(text: str) -> Iterator[Block]:
    """A block begins at a line at the margin after an empty one."""
    lines = text.split("\n")
    cuts: list[tuple[int, tuple[str, ...]]] = [(0, _name(lines[0]))]
    for number in range(1, len(lines)):
        line = lines[number]
        if line[:1].strip() and line[0] not in "})]" and not lines[number - 1].strip():
            cuts.append((number, _name(line)))
    yield from _slices(lines, cuts)


def _cuts(body: list[ast.stmt], outer: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """First lines (from 0) of definitions, and of what follows them, with their qualified names."""
    found: list[tuple[int, tuple[str, ...]]] = []
    after_definition = False
    for node in body:
        is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if is_definition or after_definition:
            found.append((_first_line(node), outer))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[-1] = (found[-1][0], (*outer, node.name))
            if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= _SPLIT_LINES:
                found.extend(_cuts(node.body, (*outer, node.name)))
        after_definition = is_definition
    return found


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)]) - 1


def _slices(lines: list[str], cuts: list[tuple[int, tuple[str, ...]]]) -> Iterator[Block]:
    """The lines between cuts; the empty ones before a cut are its gap."""
    gap, is_first = "", True
    for position, (start, section) in enumerate(cuts):
        end = cuts[position + 1][0] if position + 1 < len(cuts) else len(lines)
        piece = lines[start:end]
        while piece and not piece[-1].strip():
            piece.pop()
        skipped = 0
        while skipped < len(piece) and not piece[skipped].strip():
            skipped += 1
        trailing = lines[start + len(piece) : end]
        gap += "".join(line + "\n" for line in piece[:skipped])
        if text := "\n".join(piece[skipped:]):
            yield Block(text, "code", section, "" if is_first else gap)
            is_first, gap = False, "\n" if end < len(lines) or trailing else ""
        gap += "".join(line + "\n" for line in trailing)


def _name(line: str) -> tuple[str, ...]:
    match = _NAME.match(line)
    return (match[1],) if match else ()
