"""A look into an artifact, by its format: the first rows of a table, shape and range of an array, names of tensors, the
size of an image, the list of a directory, the beginning of a text.

Only so much is fetched as the look needs, or is allowed. What needs a library that is missing says which, and shows the
rest.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import struct
import tarfile
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from michelangelo import errors
from michelangelo.cli import artifacts, formats, table
from michelangelo.cli.artifacts import Artifact
from michelangelo.cli.content import Content

__all__ = ["show"]

_MAX_TENSORS: Final = 200
_CELL: Final = 40
_LINE: Final = 200


def show(content: Content, found: Artifact, *, rows: int, max_bytes: int) -> None:
    """Print it. Raises StorageError, IntegrityError where the whole of it was read and is damaged, ApiError."""
    _title(found, found.size)
    if len(found.files) > 1:
        first, digest = next(iter(found.files.items()))
        click.echo(f"{len(found.files)} files, of which {first}:")
        found = dataclasses.replace(found, value={**found.value, "blob": digest, "size": 0})
    if not found.digest:
        _show_text(json.dumps(found.value, indent=2, ensure_ascii=False), rows)
        return
    head = formats.head_of(content, found)
    kind = formats.kind_of(head)
    is_small = found.size <= max_bytes and (found.size > 0 or len(head) < formats.HEAD_BYTES)
    look = _Look(content, found, head, rows, max_bytes, is_small)
    try:
        _SHOWN.get(kind, _Look.show_bytes)(look)
    except errors.CodecError as e:
        click.echo(f"(no more can be shown: {e.message})")
    except (ValueError, KeyError, IndexError, SyntaxError, struct.error, tarfile.TarError):
        click.echo(f"(it begins like {kind}, and goes on otherwise)")


class _Look:
    def __init__(
        self, content: Content, found: Artifact, head: bytes, rows: int, max_bytes: int, is_small: bool
    ) -> None:
        self._content = content
        self._found = found
        self._head = head
        self._rows = rows
        self._max_bytes = max_bytes
        self._is_small = is_small

    def show_table(self) -> None:
        columns = self._found.metadata.get("columns")
        if not self._may_fetch():
            if isinstance(columns, list):
                click.echo(f"columns: {', '.join(map(str, columns))}")
            return
        read = formats.read_table(self._content, self._found)
        click.echo(f"{read.num_rows} rows, {read.num_columns} columns")
        names = list(read.column_names)
        types = [str(field.type) for field in read.schema]
        cells = [[_cell(row[name]) for name in names] for row in read.slice(0, self._rows).to_pylist()]
        titles = [f"{name} ({kind})" for name, kind in zip(names, types, strict=True)]
        table.print_rows(titles, cells)
        if read.num_rows > self._rows:
            click.echo(f"… {read.num_rows - self._rows} more")

    def show_array(self) -> None:
        """The header is text: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html"""
        width = 2 if self._head[6] == 1 else 4
        length = int.from_bytes(self._head[8 : 8 + width], "little")
        header = ast.literal_eval(self._head[8 + width : 8 + width + length].decode("utf-8").strip())
        click.echo(f"shape {header['shape']}, dtype {header['descr']}")
        if not self._may_fetch():
            return
        array = formats.decoded(self._content, self._found, "numpy")
        if array.size and array.dtype.kind in "biuf":
            click.echo(f"min {array.min()}, max {array.max()}, mean {array.mean():.6g}")
        click.echo(f"first: {', '.join(str(value) for value in array.ravel()[: self._rows])}")

    def show_tensors(self) -> None:
        """The header is JSON: https://huggingface.co/docs/safetensors"""
        length = int.from_bytes(self._head[:8], "little")
        if 8 + length > self._max_bytes:
            click.echo(f"(its header has {artifacts.size_text(length)}, more than --max-size)")
            return
        with self._content.open_blob(self._found.digest) as file:
            header: Mapping[str, Any] = json.loads(formats.read_up_to(file, 8 + length)[8:])
        tensors = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        rows = [
            [name, entry["dtype"], "x".join(map(str, entry["shape"])) or "scalar"]
            for name, entry in tensors[:_MAX_TENSORS]
        ]
        click.echo(f"{len(tensors)} tensors")
        table.print_rows(["NAME", "DTYPE", "SHAPE"], rows)
        if len(tensors) > _MAX_TENSORS:
            click.echo(f"… {len(tensors) - _MAX_TENSORS} more")

    def show_png(self) -> None:
        width, height = struct.unpack(">II", self._head[16:24])
        click.echo(f"PNG image, {width} x {height}")

    def show_gif(self) -> None:
        width, height = struct.unpack("<HH", self._head[6:10])
        click.echo(f"GIF image, {width} x {height}")

    def show_jpeg(self) -> None:
        """The size is in the first frame header."""
        place = 2
        while place + 9 < len(self._head):
            marker, length = self._head[place + 1], int.from_bytes(self._head[place + 2 : place + 4], "big")
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width = struct.unpack(">HH", self._head[place + 5 : place + 9])
                click.echo(f"JPEG image, {width} x {height}")
                return
            place += 2 + length
        click.echo("JPEG image")

    def show_directory(self) -> None:
        if not self._may_fetch():
            return
        rows: list[list[str]] = []
        count = size = 0
        with self._content.open_blob(self._found.digest) as source, tarfile.open(fileobj=source, mode="r|") as tar:
            for member in tar:
                count += member.isreg()
                size += member.size
                if len(rows) < self._rows:
                    rows.append([member.name + "/" * member.isdir(), artifacts.size_text(member.size)])
        click.echo(f"{count} files, {artifacts.size_text(size)}")
        table.print_rows(["NAME", "SIZE"], rows)

    def show_json(self) -> None:
        text = self._head.decode("utf-8", "replace")
        if self._is_small and self._found.size <= formats.HEAD_BYTES:
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        _show_text(text, self._rows, is_cut=len(self._head) >= formats.HEAD_BYTES)

    def show_text(self) -> None:
        _show_text(self._head.decode("utf-8", "replace"), self._rows, is_cut=len(self._head) >= formats.HEAD_BYTES)

    def show_bytes(self) -> None:
        for start in range(0, min(len(self._head), 16 * self._rows), 16):
            line = self._head[start : start + 16]
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
            click.echo(f"{start:08x}  {line.hex(' '):<47}  {shown}")

    def _may_fetch(self) -> bool:
        if not self._is_small:
            click.echo(f"(more is shown of what has at most {artifacts.size_text(self._max_bytes)}: --max-size)")
        return self._is_small


_SHOWN: Final[Mapping[str, Callable[[_Look], None]]] = {
    "parquet": _Look.show_table,
    "npy": _Look.show_array,
    "safetensors": _Look.show_tensors,
    "png": _Look.show_png,
    "gif": _Look.show_gif,
    "jpeg": _Look.show_jpeg,
    "tar": _Look.show_directory,
    "json": _Look.show_json,
    "text": _Look.show_text,
}


def _title(found: Artifact, size: int) -> None:
    words = [found.name, found.type, artifacts.size_text(size) if size else "", found.digest, found.summary]
    click.echo("  ".join(word for word in words if word))


def _show_text(text: str, rows: int, *, is_cut: bool = False) -> None:
    lines = text.splitlines()
    for line in lines[:rows]:
        shown = line.expandtabs()
        click.echo("".join(char if char.isprintable() else "�" for char in shown[:_LINE]) + "…" * (len(shown) > _LINE))
    if len(lines) > rows or is_cut:
        click.echo("…" if is_cut else f"… {len(lines) - rows} more lines")


def _cell(value: Any) -> str:
    text = " ".join(str("" if value is None else value).split())
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
