"""Tables of objects: the kind's printed columns, aligned, with colours only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from michelangelo.api.v2 import columns
from michelangelo.api.v2.registry import Kind
from michelangelo.cli import colours
from michelangelo.client.client import Object
from michelangelo.meta import timestamps

__all__ = ["RowPrinter", "counted", "print_rows", "print_table", "state"]

_COLOURS: Final[Mapping[str, str]] = {
    "Succeeded": "green",
    "Cached": "cyan",
    "Ready": "green",
    "Running": "yellow",
    "Pending": "yellow",
    "Failed": "red",
    "Killed": "red",
    "Lost": "red",
    "Error": "red",
    "Warning": "yellow",
}


class RowPrinter:
    """Rows of one kind, for a table that grows: the first rows fix the widths that later ones keep to."""

    def __init__(self, kind: Kind, *, wide: bool = False, with_namespace: bool = False, prefix: str = "") -> None:
        self._kind = kind
        self._shown = [i for i, column in enumerate(columns.columns(kind)) if wide or column.priority == 0]
        self._with_namespace = with_namespace and kind.namespaced
        self._prefix = prefix
        self._widths: list[int] = []

    def print(self, objects: Sequence[Object]) -> None:
        """Add rows. The titles come before the first ones."""
        rows = [self._row(obj) for obj in objects]
        if not self._widths:
            titles = [column.name.upper() for column in columns.columns(self._kind)]
            rows.insert(0, self._placed("NAMESPACE", titles))
        widths = [max(len(cell) for cell in cells) for cells in zip(*rows, strict=True)]
        self._widths = [max(pair) for pair in zip(self._widths or widths, widths, strict=True)]
        for row in rows:
            print(_line(row, self._widths))

    def _row(self, obj: Object) -> list[str]:
        values = columns.cells(self._kind, obj, timestamps.system_clock())
        cells = [" ".join(columns.text(value).split()) for value in values]
        cells[0] = self._prefix + cells[0]
        return self._placed(obj["metadata"].get("namespace", ""), cells)

    def _placed(self, namespace: str, cells: Sequence[str]) -> list[str]:
        return [*([namespace] if self._with_namespace else []), *(cells[i] for i in self._shown)]


def print_table(
    kind: Kind, objects: Sequence[Object], *, wide: bool = False, with_namespace: bool = False, prefix: str = ""
) -> None:
    """The objects of one kind, all at once."""
    RowPrinter(kind, wide=wide, with_namespace=with_namespace, prefix=prefix).print(objects)


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Any table of text."""
    table = [list(titles), *(list(row) for row in rows)]
    widths = [max(len(cell) for cell in cells) for cells in zip(*table, strict=True)]
    for row in table:
        print(_line(row, widths))


def counted(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def state(text: str) -> str:
    """A state, coloured on a terminal."""
    return colours.paint(text, _COLOURS[text], sys.stdout) if text in _COLOURS else text


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [state(cell) + " " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)]
    return "   ".join(padded).rstrip()
