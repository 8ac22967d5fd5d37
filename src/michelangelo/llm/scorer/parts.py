"""Rows as they are done: a log that is appended to and survives a kill at any instant, and the sealed part of a shard.

A log is lines of `CRC32 {json}` or `CRC32 {json}<tab>{output}`: which rows were given to the engine, and which came
back, with the line of output they are worth. A line whose checksum does not fit (the torn last one, a damaged one) was
not written: its row is scored again. Nothing here knows engines or who works on which shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import orjson

from michelangelo import errors

__all__ = ["DoneRow", "LogState", "LogWriter", "PartFacts", "copy_lines", "read_log", "seal", "sync_folder"]

_CRC_CHARACTERS: Final = 8
_COPY_BYTES: Final = 1 << 20
_SYNC_BYTES: Final = 8 << 20
"""Written between two syncs to the disk: what a power cut may cost."""


@dataclass(frozen=True, slots=True)
class DoneRow:
    """Where the output of one row lies."""

    path: Path
    offset: int
    num_bytes: int
    digest: str
    """Of the row of the input that it answers."""
    facts: Mapping[str, Any]
    """Tokens and seconds, for the report."""


@dataclass(slots=True)
class LogState:
    """What logs of one shard say. Numbers of rows count from the shard's first one."""

    done: dict[int, DoneRow] = field(default_factory=dict)
    num_lost: int = 0
    """Rows given to an engine that did not come back: each of them is scored again."""
    num_damaged: int = 0
    """Lines that do not fit their checksums, torn last ones included."""
    suspects: frozenset[int] = frozenset()
    """Rows in flight when the newest log ended."""


class LogWriter:
    """One replica's log of one shard, in a file that nobody else writes. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        self._size = 0
        self._synced = 0

    def submitted(self, rows: Sequence[int]) -> None:
        """Before they are given to the engine: so a kill leaves no row in flight unsaid."""
        self._write(orjson.dumps({"s": list(rows)}))

    def done(self, row: int, digest: str, facts: Mapping[str, Any], output: bytes) -> DoneRow:
        """`output`: one line of JSON without its end."""
        head = orjson.dumps({"r": row, "d": digest, "m": facts})
        begin = self._size + _CRC_CHARACTERS + 1 + len(head) + 1
        self._write(head + b"\t" + output)
        return DoneRow(self.path, begin, len(output), digest, facts)

    def _write(self, payload: bytes) -> None:
        line = b"%08x %s\n" % (zlib.crc32(payload), payload)
        written = self._file.write(line)
        while written is not None and written < len(line):
            line = line[written:]
            self._size += written
            written = self._file.write(line)
        self._size += len(line)
        if self._size - self._synced >= _SYNC_BYTES:
            os.fdatasync(self._file.fileno())
            self._synced = self._size

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def read_log(paths: Iterable[Path]) -> LogState:
    """What several logs of one shard say together; the first that has a row is believed. A missing one is empty."""
    state = LogState()
    for path in paths:
        submitted: set[int] = set()
        finished: set[int] = set()
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            offset = 0
            for line in file:
                payload = _checked(line)
                if payload is None:
                    state.num_damaged += 1
                else:
                    head, _, output = payload.partition(b"\t")
                    record = orjson.loads(head)
                    if "s" in record:
                        submitted.update(record["s"])
                    else:
                        finished.add(record["r"])
                        begin = offset + _CRC_CHARACTERS + 1 + len(head) + 1
                        row = DoneRow(path, begin, len(output), record["d"], record["m"])
                        state.done.setdefault(record["r"], row)
                offset += len(line)
        state.num_lost += len(submitted - finished)
        state.suspects = frozenset(submitted - finished)
    state.suspects -= state.done.keys()
    return state


def _checked(line: bytes) -> bytes | None:
    """What is in a line, or None if it is not whole."""
    if not line.endswith(b"\n") or line[_CRC_CHARACTERS : _CRC_CHARACTERS + 1] != b" ":
        return None
    payload = line[_CRC_CHARACTERS + 1 : -1]
    try:
        said = int(line[:_CRC_CHARACTERS], 16)
    except ValueError:
        return None
    return payload if said == zlib.crc32(payload) else None


@dataclass(frozen=True, slots=True)
class PartFacts:
    """A sealed part: its bytes are those of the output."""

    num_bytes: int
    digest: str
    """blake2b, hexadecimal, of all its bytes."""


def seal(path: Path, rows: Sequence[DoneRow]) -> PartFacts:
    """Writes the outputs of `rows` in their order, one line each, to a new file that is on the disk when this returns.

    Holds one row at a time. Raises ScoringError if a log has changed meanwhile.
    """
    digest = hashlib.blake2b(digest_size=16)
    size = 0
    with contextlib.ExitStack() as stack, open(path, "wb") as part:
        opened: dict[Path, BinaryIO] = {}
        for row in rows:
            if row.path not in opened:
                opened[row.path] = stack.enter_context(open(row.path, "rb"))
            file = opened[row.path]
            file.seek(row.offset)
            data = file.read(row.num_bytes)
            if len(data) != row.num_bytes:
                raise errors.ScoringError(f"{row.path} became shorter while it was read; start the same command again")
            data += b"\n"
            digest.update(data)
            size += len(data)
            part.write(data)
        part.flush()
        os.fsync(part.fileno())
    sync_folder(path.parent)
    return PartFacts(size, digest.hexdigest())


def copy_lines(path: Path, facts: PartFacts) -> Iterator[bytes]:
    """A sealed part in pieces. Raises ScoringError, after its last piece, if it is not as it was sealed."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while piece := file.read(_COPY_BYTES):
                digest.update(piece)
                yield piece
    except OSError as e:
        raise errors.ScoringError(f"{path} cannot be read: {e.strerror or e}; a part of the result is lost") from e
    if digest.hexdigest() != facts.digest:
        raise errors.ScoringError(
            f"{path} is not as it was written: its digest is {digest.hexdigest()}, not {facts.digest}. Delete it and "
            f"{path.parent.parent / 'done' / (path.name.partition('-')[0] + '.json')}, and start the same command again"
        )


def sync_folder(folder: Path) -> None:
    """So that names made in it survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
