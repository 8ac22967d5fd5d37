"""Rows divided into shards: contiguous, in order, each in one file, with a digest of what is in it.

Lines are read once to find where shards begin, a bounded number of them however many rows there are; tables say how
many rows they have. A shard's digest is a sum over its rows, so that neighbours can be put together without reading
again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.finetune.data.rows import Position
from michelangelo.llm.scorer import sources
from michelangelo.llm.scorer.config import InputConfig
from michelangelo.llm.scorer.sources import InputFile

__all__ = ["MAX_SHARD_ROWS", "Division", "FileFacts", "Shard", "divide", "facts_of", "row_sum"]

MAX_SHARD_ROWS: Final = 1024
"""With which many shards still take little time each."""
_SHARDS_PER_REPLICA: Final = 16
"""So that slow replicas take fewer, and the last ones end about together."""
_MAX_GRANULES: Final = 1 << 15
_MODULUS: Final = 1 << 128


@dataclass(frozen=True, slots=True)
class Shard:
    """`num_rows` rows of file `file` from `start` on."""

    number: int
    file: int
    start: Position
    num_rows: int
    first: int
    """The number of its first row among all rows of the job, from 0."""
    digest: str
    """Hexadecimal sum over its rows; empty: the digest of the file stands for it."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "start": list(self.start)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Shard:
        return cls(**{**value, "start": (value["start"][0], value["start"][1])})


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What tells whether a file is still the same."""

    file: InputFile
    num_rows: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FileFacts:
        return cls(InputFile(**value["file"]), value["num_rows"], value["digest"])


@dataclass(frozen=True, slots=True)
class Division:
    """All shards, in the order of the rows."""

    files: tuple[FileFacts, ...]
    shards: tuple[Shard, ...]

    @property
    def num_rows(self) -> int:
        return sum(shard.num_rows for shard in self.shards)


def divide(
    config: InputConfig,
    *,
    num_replicas: int,
    shard_rows: int = 0,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> Division:
    """`on_progress` gets the number of rows found so far, now and then. Raises DatasetError."""
    facts: list[FileFacts] = []
    granules: list[Shard] = []
    limit = config.limit or None
    for file in sources.files_of(config):
        left = None if limit is None else limit - sum(fact.num_rows for fact in facts)
        if left == 0:
            break
        stream = sources.open_stream(file)
        wanted = shard_rows or MAX_SHARD_ROWS
        if (rows := stream.num_rows) is None:
            made = _scanned(stream, len(facts), left, shard_rows, on_progress)
            digest = f"{sum(int(one.digest, 16) for one in made) % _MODULUS:032x}"
        else:
            rows = rows if left is None else min(rows, left)
            made = _even(rows, len(facts), wanted)
            digest = stream.identity
        facts.append(FileFacts(file, sum(one.num_rows for one in made), digest))
        granules += made
    if not granules:
        raise errors.DatasetError(f"{', '.join(config.path)}: there is no row in it; put rows into it")
    total = sum(one.num_rows for one in granules)
    wanted = shard_rows or max(1, min(MAX_SHARD_ROWS, -(-total // (_SHARDS_PER_REPLICA * num_replicas))))
    return Division(tuple(facts), tuple(_numbered(_fitted(granules, wanted))))


def facts_of(file: InputFile, limit: int) -> tuple[int, str]:
    """Rows and digest of a file as they are now, at most `limit` rows. Raises DatasetError."""
    stream = sources.open_stream(file)
    if (rows := stream.num_rows) is not None:
        return min(rows, limit), stream.identity
    made = _scanned(stream, 0, limit, MAX_SHARD_ROWS, lambda rows: None)
    return sum(one.num_rows for one in made), f"{sum(int(one.digest, 16) for one in made) % _MODULUS:032x}"


def row_sum(digest: bytes, number: int) -> int:
    """A row's summand in the digest of its shard; `number`: in its file, so that rows cannot change places."""
    return int.from_bytes(
        hashlib.blake2b(digest, digest_size=16, salt=number.to_bytes(16, "little")).digest(), "little"
    )


def _even(rows: int, file: int, size: int) -> list[Shard]:
    size = max(1, size)
    return [Shard(0, file, (first, first), min(size, rows - first), first, "") for first in range(0, rows, size)]


def _scanned(
    stream: sources.Stream, file: int, limit: int | None, size: int, on_progress: Callable[[int], None]
) -> list[Shard]:
    """Granules of `size` rows (0: small ones that grow as they become many)."""
    granule = size or 1
    made: list[Shard] = []
    start: Position = (0, 0)
    rows, total, digest = 0, 0, 0
    for row, position in stream.read():
        digest += row_sum(row.digest, total)
        rows, total = rows + 1, total + 1
        if rows == granule:
            made.append(Shard(0, file, start, rows, total - rows, f"{digest % _MODULUS:032x}"))
            start, rows, digest = position, 0, 0
            if not size and len(made) >= _MAX_GRANULES:
                made, granule = _halved(made), granule * 2
                on_progress(total)
        if total == limit:
            break
    if rows:
        made.append(Shard(0, file, start, rows, total - rows, f"{digest % _MODULUS:032x}"))
    return made


def _halved(granules: Sequence[Shard]) -> list[Shard]:
    return [_together(granules[i : i + 2]) for i in range(0, len(granules), 2)]


def _together(parts: Sequence[Shard]) -> Shard:
    if len(parts) == 1:
        return parts[0]
    digest = ""
    if parts[0].digest:
        digest = f"{sum(int(one.digest, 16) for one in parts) % _MODULUS:032x}"
    return replace(parts[0], num_rows=sum(one.num_rows for one in parts), digest=digest)


def _fitted(granules: Sequence[Shard], wanted: int) -> list[Shard]:
    """Neighbours of one file put together up to `wanted` rows; tables can also be cut."""
    made: list[Shard] = []
    pending: list[Shard] = []
    for granule in granules:
        if pending and (
            pending[0].file != granule.file or sum(one.num_rows for one in pending) + granule.num_rows > wanted
        ):
            made.append(_together(pending))
            pending = []
        if not granule.digest and granule.num_rows > wanted:
            first = granule.start[1]
            cut = _even(granule.num_rows, granule.file, wanted)
            made += [replace(one, start=(first + one.first, first + one.first)) for one in cut]
        else:
            pending.append(granule)
    if pending:
        made.append(_together(pending))
    return made


def _numbered(shards: Sequence[Shard]) -> list[Shard]:
    made = []
    first = 0
    for number, shard in enumerate(shards):
        made.append(replace(shard, number=number, first=first))
        first += shard.num_rows
    return made
