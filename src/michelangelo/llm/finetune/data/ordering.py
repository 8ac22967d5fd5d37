"""Which raw row comes when: mixtures of sources, shuffles, passes; and where in that order one is.

Two orders with one interface. `TableOrder` permutes all rows of tables; a position is a number. `StreamOrder`
interleaves streams and shuffles block by block (a block is read, permuted, handed out): a position is where the streams
stood when the block began and how much of it was taken, so that to continue costs reading one block. Both are functions
of seed and pass alone. A weight says how often a row of a source comes in a pass, relative to the least weight: 1 and 3
mean once and three times, 2 and 3 once and, for every second row, twice. No row is left out of a pass.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from michelangelo.llm.finetune.data.rows import Position, Row
from michelangelo.llm.finetune.data.shards import Shard
from michelangelo.llm.finetune.data.tables import Table

__all__ = ["RowOrder", "StreamOrder", "StreamSource", "TableOrder", "TableSource"]

_MAX_BLOCK_BYTES: Final = 256 * 1024 * 1024
"""A block ends early when its rows take more, so that long rows cannot fill the memory."""
_SEQUENTIAL_BLOCK: Final = 1024
_PERMUTATION, _DRAWS, _FILES, _PARTS = range(4)
"""What a random stream is for: no two uses share numbers."""


class RowOrder(Protocol):
    """A pass over all rows."""

    def start(self, epoch: int) -> None:
        """To the beginning of a pass."""
        ...

    def read(self, limit: int) -> list[Row]:
        """The next rows; fewer than `limit` does not mean that the pass is over, none at all does."""
        ...

    def position(self) -> Any:
        """JSON: where `read` goes on, within the pass."""
        ...

    def seek(self, epoch: int, position: Any) -> None: ...

    def num_rows(self) -> int | None:
        """Of a pass; None: not known."""
        ...


@dataclass(frozen=True, slots=True)
class TableSource:
    tables: Sequence[Table]
    weight: float


class TableOrder:
    """All rows of all tables, in a random permutation or evenly interleaved."""

    def __init__(self, sources: Sequence[TableSource], *, seed: int, shuffled: bool) -> None:
        self._tables = [table for source in sources for table in source.tables]
        self._starts = np.cumsum([0, *(len(table) for table in self._tables)])
        self._sizes = [sum(len(table) for table in source.tables) for source in sources]
        self._rounds = _rounds([source.weight for source in sources])
        self._seed = seed
        self._shuffled = shuffled
        self._order: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._next = 0
        self.start(0)

    def start(self, epoch: int) -> None:
        self._next = 0
        start = 0
        parts, keys = [], []
        for source, (size, rounds) in enumerate(zip(self._sizes, self._rounds, strict=True)):
            repeated = [np.arange(start, start + size)] * math.floor(rounds)
            if rest := rounds - math.floor(rounds):
                random = _random(self._seed, epoch, _PARTS, source)
                repeated.append(np.sort(random.permutation(size)[: round(rest * size)]) + start)
            rows = np.concatenate(repeated) if repeated else np.zeros(0, np.int64)
            parts.append(rows)
            keys.append((np.arange(len(rows)) + 0.5) / max(1, len(rows)))
            start += size
        rows = np.concatenate(parts)
        if self._shuffled:
            self._order = _random(self._seed, epoch, _PERMUTATION).permutation(rows)
        else:
            self._order = rows[np.argsort(np.concatenate(keys), kind="stable")]

    def read(self, limit: int) -> list[Row]:
        wanted = self._order[self._next : self._next + limit]
        self._next += len(wanted)
        rows: list[Row | None] = [None] * len(wanted)
        homes = np.searchsorted(self._starts, wanted, side="right") - 1
        for home in np.unique(homes):
            places = np.flatnonzero(homes == home)
            found = self._tables[home].rows((wanted[places] - self._starts[home]).tolist())
            for place, row in zip(places, found, strict=True):
                rows[place] = row
        return [row for row in rows if row is not None]

    def position(self) -> int:
        return self._next

    def seek(self, epoch: int, position: Any) -> None:
        self.start(epoch)
        self._next = int(position)

    def num_rows(self) -> int:
        return len(self._order)


@dataclass(frozen=True, slots=True)
class StreamSource:
    shards: Sequence[Shard]
    weight: float


class StreamOrder:
    """Rows of streams, shuffled within blocks of `block_rows` (0: not at all). In a shuffled pass the files of a source
    come in random order, too."""

    def __init__(self, sources: Sequence[StreamSource], *, seed: int, block_rows: int) -> None:
        self._sources = sources
        self._rounds = _rounds([source.weight for source in sources])
        self._rates = _rates(sources, self._rounds)
        self._seed = seed
        self._block_rows = block_rows
        self._epoch = 0
        self._readers: list[_Reader] = []
        self._begin: dict[str, Any] = {}
        self._block: list[Row] = []
        self._taken = 0
        self.start(0)

    def start(self, epoch: int) -> None:
        fresh = [_Mark().to_json() for _ in self._sources]
        self.seek(epoch, {"block": 0, "taken": 0, "sources": fresh})

    def read(self, limit: int) -> list[Row]:
        if self._taken >= len(self._block):
            self._read_block(int(self._begin["block"]) + bool(self._block))
        rows = self._block[self._taken : self._taken + limit]
        self._taken += len(rows)
        return rows

    def position(self) -> Mapping[str, Any]:
        if self._block and self._taken >= len(self._block):
            marks = [reader.mark.to_json() for reader in self._readers]
            return {"block": self._begin["block"] + 1, "taken": 0, "sources": marks}
        return {**self._begin, "taken": self._taken}

    def seek(self, epoch: int, position: Any) -> None:
        self._epoch = epoch
        marks = [_Mark.from_json(mark) for mark in position["sources"]]
        self._readers = [self._reader(number, mark) for number, mark in enumerate(marks)]
        self._begin = {"block": int(position["block"]), "sources": position["sources"]}
        self._block, self._taken = [], 0
        if position["taken"]:
            self._read_block(int(position["block"]))
            self._taken = int(position["taken"])

    def num_rows(self) -> None:
        return None

    def _reader(self, number: int, mark: _Mark) -> _Reader:
        pass_of = _Pass(self._seed, self._epoch, number, self._rounds[number], shuffled=self._block_rows > 0)
        return _Reader(self._sources[number].shards, mark, pass_of)

    def _read_block(self, number: int) -> None:
        self._begin = {"block": number, "sources": [reader.mark.to_json() for reader in self._readers]}
        # The block that was used up goes before the next one comes.
        self._block, self._taken = [], 0
        random = _random(self._seed, self._epoch, _DRAWS, number)
        alive = [source for source, reader in enumerate(self._readers) if not reader.mark.is_done]
        rows: list[Row] = []
        num_bytes = 0
        while alive and len(rows) < (self._block_rows or _SEQUENTIAL_BLOCK) and num_bytes < _MAX_BLOCK_BYTES:
            source = alive[0]
            if len(alive) > 1:
                rates = np.cumsum([self._rates[one] for one in alive])
                source = alive[int(np.searchsorted(rates, random.random() * rates[-1], side="right"))]
            row = self._readers[source].next()
            if row is None:
                alive.remove(source)
                continue
            rows.append(row)
            num_bytes += _size_of(row.data)
        if self._block_rows:
            order = _random(self._seed, self._epoch, _PERMUTATION, number).permutation(len(rows))
            rows = [rows[place] for place in order]
        self._block = rows


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a source is: which time over, which of its shards, where in it, and how many rows came this time."""

    round: int = 0
    shard: int = 0
    position: Position = (0, 0)
    row: int = 0
    is_done: bool = False

    def to_json(self) -> list[int]:
        return [self.round, self.shard, *self.position, self.row, int(self.is_done)]

    @classmethod
    def from_json(cls, data: Sequence[int]) -> _Mark:
        number, shard, offset, line, row, is_done = (int(part) for part in data)
        return cls(number, shard, (offset, line), row, bool(is_done))


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass over one source."""

    seed: int
    epoch: int
    source: int
    rounds: float
    shuffled: bool = field(kw_only=True)

    def files(self, number: int, count: int) -> list[int]:
        """The order of the shards the `number`th time over."""
        if not self.shuffled:
            return list(range(count))
        random = _random(self.seed, self.epoch, _FILES, self.source, number)
        return [int(place) for place in random.permutation(count)]

    def has(self, number: int, row: int) -> bool:
        """Whether a row comes in the `number`th round; the last one may be for a share of the rows."""
        share = self.rounds - number
        if share >= 1.0:
            return True
        key = f"{self.seed}:{self.epoch}:{self.source}:{row}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) < share * 2.0**64


class _Reader:
    """The rows of one source in one pass, from a mark on."""

    def __init__(self, shards: Sequence[Shard], mark: _Mark, pass_of: _Pass) -> None:
        self.mark = mark
        self._shards = shards
        self._pass = pass_of
        self._rows: Iterator[tuple[Row, Position]] | None = None
        self._files: list[int] = []

    def next(self) -> Row | None:
        """None: the pass is over for this source."""
        while not self.mark.is_done:
            mark = self.mark
            if self._rows is None:
                self._files = self._pass.files(mark.round, len(self._shards))
                self._rows = self._shards[self._files[mark.shard]].read(mark.position)
            found = next(self._rows, None)
            if found is None:
                self._rows = None
                self.mark = self._after_shard(mark)
                continue
            row, position = found
            self.mark = _Mark(mark.round, mark.shard, position, mark.row + 1)
            if self._pass.has(mark.round, mark.row):
                return row
        return None

    def _after_shard(self, mark: _Mark) -> _Mark:
        if mark.shard + 1 < len(self._shards):
            return _Mark(mark.round, mark.shard + 1, row=mark.row)
        # Nothing was read this time over: there is nothing to read the next time either.
        is_done = mark.round + 1 >= self._pass.rounds or not mark.row
        return _Mark(mark.round + 1, is_done=is_done)


def _rounds(weights: Sequence[float]) -> list[float]:
    """How often the rows of each source come in a pass; 1 for the least weight."""
    least = min(weights)
    return [round(weight / least, 9) for weight in weights]


def _rates(sources: Sequence[StreamSource], rounds: Sequence[float]) -> list[float]:
    """How often each source is drawn from, so that all of them end at about the same time; by weight alone where the
    size of one is not known."""
    sizes = [sum(shard.num_bytes for shard in source.shards) for source in sources]
    known = all(shard.num_bytes for source in sources for shard in source.shards)
    return [times * (size if known else 1) for times, size in zip(rounds, sizes, strict=True)]


def _random(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([abs(part) for part in key])))


def _size_of(data: Any) -> int:
    """About how many bytes a value takes; the same wherever reading began."""
    if isinstance(data, str | bytes):
        return len(data) + 50
    if isinstance(data, Mapping):
        return sum(_size_of(value) for value in data.values()) + 100
    if isinstance(data, list | tuple):
        return sum(_size_of(value) for value in data) + 50
    return 30
