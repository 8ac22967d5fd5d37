"""Arrow tables as Parquet, in pieces: row groups of one blob, or shards that are a blob each.

Where a piece ends depends on the rows alone, not on how they came in chunks, blocks or batches: equal tables are equal
bytes, whoever wrote them. No more than one piece is in memory. It knows neither pandas nor any other library of tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from michelangelo.errors import CodecError
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__ = ["PIECE_BYTES", "check_schema", "pieces", "read", "read_shards", "shape", "write", "write_shards"]

PIECE_BYTES: Final = 64 << 20
"""About so many bytes of a table, uncompressed, are one piece."""
_UNIT_ROWS: Final = 128
"""Pieces end at multiples of this many rows."""


def pieces(tables: Iterable[pa.Table], *, piece_bytes: int = PIECE_BYTES) -> Iterator[pa.Table]:
    """The rows of `tables`, which have one schema, cut anew; each piece is contiguous. No rows, no piece."""
    parts: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        width, variable = _widths(table.schema)
        unit = _UNIT_ROWS
        if not variable:  # then their number says how large rows are
            unit = max(1, -(-piece_bytes // (_UNIT_ROWS * max(1, width)))) * _UNIT_ROWS
        start = place = 0
        while place < table.num_rows:
            step = min(unit - rows % unit, table.num_rows - place)
            size += step * width
            if variable:
                size += table.slice(place, step).select(variable).nbytes
            rows += step
            place += step
            if rows % unit == 0 and size >= piece_bytes:
                yield _joined([*parts, table.slice(start, place - start)])
                parts, rows, size, start = [], 0, 0, place
        if start < table.num_rows:
            parts.append(table.slice(start))
    if parts:
        yield _joined(parts)


def write(schema: pa.Schema, tables: Iterable[pa.Table], encoder: Encoder) -> dict[str, Any]:
    """One blob with a row group per piece; the fields of a leaf that names it."""

    def fill(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for piece in pieces(tables):
                writer.write_table(piece, row_group_size=max(1, piece.num_rows))

    try:
        return encoder.stream(fill)
    except pa.ArrowException as error:
        raise Unencodable(f"table that Parquet cannot hold: {error}; convert the column") from error


def write_shards(tables: Iterable[pa.Table], encoder: Encoder, *, schema: pa.Schema | None = None) -> dict[str, Any]:
    """A blob per piece; the fields of a leaf that names them. `schema` is needed where there may be no rows."""
    blobs: list[dict[str, Any]] = []
    rows: list[int] = []
    for piece in pieces(tables):
        blobs.append(write(piece.schema, [piece], encoder))
        rows.append(piece.num_rows)
    if not blobs and schema is not None:
        blobs.append(write(schema, [], encoder))
        rows.append(0)
    return {
        "blobs": [blob["blob"] for blob in blobs],
        "sizes": [blob["size"] for blob in blobs],
        "rows": rows,
        "size": sum(blob["size"] for blob in blobs),
    }


def read(digest: str, decoder: Decoder) -> pa.Table:
    """The table in a blob. CodecError when it is none."""
    with decoder.path(digest) as path:
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                return file.read()
        except pa.ArrowException as error:
            raise CodecError(f"blob {digest} is no Parquet table: {error}") from error


def read_shards(leaf: Mapping[str, Any], decoder: Decoder) -> Iterator[pa.Table]:
    """The tables of a leaf's shards, one at a time."""
    for digest in leaf["blobs"]:
        yield read(digest, decoder)


def shape(rows: int, columns: Any) -> dict[str, Any]:
    """For people; a table with very many columns names the first hundred."""
    return {"rows": rows, "columns": [str(column) for column in columns[:100]], "columnCount": len(columns)}


def check_schema(schema: pa.Schema) -> None:
    """Unencodable for columns of Python objects, which some libraries pickle behind one's back."""
    for field in schema:
        if isinstance(field.type, pa.BaseExtensionType) and "pickle" in field.type.extension_name.lower():
            raise Unencodable(
                f"column {field.name!r} holds Python objects; convert it to numbers, text, lists or structs"
            )


def _joined(parts: list[pa.Table]) -> pa.Table:
    # Batches of some libraries differ in what they could not know: the type of a column of which they saw nulls only.
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks()


def _widths(schema: pa.Schema) -> tuple[int, list[str | int]]:
    """The bytes of a row in columns of fixed width, and the other columns."""
    width = 0
    variable: list[str | int] = []
    for number, field in enumerate(schema):
        kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
        try:
            width += -(-kind.bit_width // 8)
        except ValueError:
            variable.append(number)
    return width, variable
