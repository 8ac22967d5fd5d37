"""Random access to the rows of shards, for data that is not streamed.

Plain local files of lines are indexed (8 bytes a row) and read where they are, Hugging Face data sets are mapped;
Parquet, compressed and remote files are held in memory, once per process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.finetune.data import shards
from michelangelo.llm.finetune.data.rows import Row
from michelangelo.llm.finetune.data.shards import Shard

__all__ = ["ArrowTable", "HeldTable", "HfTable", "LineTable", "Table", "table_of"]

_CHUNK_BYTES: Final = 16 * 1024 * 1024


class Table(Protocol):
    """Rows by number, from 0."""

    def __len__(self) -> int: ...

    def rows(self, indices: Sequence[int]) -> list[Row]: ...


def table_of(shard: Shard) -> Table:
    """The most frugal table for a shard. Raises DatasetError if it cannot be read."""
    if isinstance(shard, shards.LineShard) and shard.file.is_local and not shard.file.compression:
        return LineTable(shard)
    if isinstance(shard, shards.ParquetShard):
        return ArrowTable(shard)
    if isinstance(shard, shards.HfShard):
        return HfTable(shard)
    return HeldTable(shard)


class LineTable:
    """Where each line begins; the lines stay in the file."""

    def __init__(self, shard: shards.LineShard) -> None:
        self._shard = shard
        try:
            self._starts, self._lines = _index(shard)
            self._file = os.open(shard.file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise errors.DatasetError(f"{shard.name} cannot be read: {e}") from e

    def __len__(self) -> int:
        return len(self._lines)

    def rows(self, indices: Sequence[int]) -> list[Row]:
        return [self._row(index) for index in indices]

    def _row(self, index: int) -> Row:
        line = int(self._lines[index])
        start, stop = int(self._starts[line]), int(self._starts[line + 1])
        if stop - start > shards.MAX_LINE_BYTES + 1:
            return self._shard.row(None, line + 1)
        try:
            data = os.pread(self._file, stop - start, start)
        except OSError as e:
            raise errors.DatasetError(f"{self._shard.name} cannot be read: {e}") from e
        if len(data) != stop - start:
            raise errors.DatasetError(f"{self._shard.name} became shorter while it was read; start the run again")
        return self._shard.row(data.rstrip(b"\r\n"), line + 1)

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            os.close(file)


def _index(shard: shards.LineShard) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where lines begin (and where the last one ends), and which of them are rows."""
    ends: list[npt.NDArray[np.int64]] = []
    size = 0
    with open(shard.file.path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            ends.append(np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + (size + 1))
            size += len(chunk)
    starts = np.concatenate([np.zeros(1, np.int64), *ends])
    if starts[-1] != size:
        starts = np.append(starts, size)
    lines = np.arange(len(starts) - 1)
    if shard.form == "text":
        lines = lines[_has_text(shard, starts)]
    return starts, lines


def _has_text(shard: shards.LineShard, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Per line, as LineShard sees it."""
    found = np.ones(len(starts) - 1, np.bool_)
    with open(shard.file.path, "rb") as file:
        for number in range(len(found)):
            size = int(starts[number + 1] - starts[number])
            line = file.readline(size) if size <= shards.MAX_LINE_BYTES + 1 else None
            if line is None:
                file.seek(int(starts[number + 1]))
            else:
                found[number] = bool(line.strip())
    return found


class ArrowTable:
    """The needed columns of a Parquet file, in memory."""

    def __init__(self, shard: shards.ParquetShard) -> None:
        self._name = shard.name
        # One chunk per column: a row is then found without a search through the chunks.
        self._table: Any = shard.table().combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def rows(self, indices: Sequence[int]) -> list[Row]:
        taken = self._table.take(list(indices)).to_pylist()
        return [Row(row, "fields", self._name, index + 1) for row, index in zip(taken, indices, strict=True)]


class HfTable:
    """A Hugging Face data set, mapped from its files."""

    def __init__(self, shard: shards.HfShard) -> None:
        self._shard = shard

    def __len__(self) -> int:
        return len(self._shard.dataset)

    def rows(self, indices: Sequence[int]) -> list[Row]:
        taken = self._shard.rows(indices)
        return [Row(row, "fields", self._shard.name, index + 1) for row, index in zip(taken, indices, strict=True)]


class HeldTable:
    """All rows in memory, as they were stored."""

    def __init__(self, shard: Shard) -> None:
        self._rows = [row for row, _ in shard.read()]

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, indices: Sequence[int]) -> list[Row]:
        return [self._rows[index] for index in indices]
