"""Sealed parts → the output, in the order of the input: streamed, whole or not at all, checked by their digests.

JSON lines are copied as they are; Parquet is written of the same lines, in groups of rows that depend on the rows only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from michelangelo import errors
from michelangelo.llm.finetune.data import locations
from michelangelo.llm.scorer import parts
from michelangelo.llm.scorer.config import ScoreConfig
from michelangelo.llm.scorer.manifest import JobFolder
from michelangelo.llm.scorer.parts import PartFacts
from michelangelo.llm.scorer.sharding import Shard

__all__ = ["Written", "check_place", "is_there", "write"]

_GROUP_ROWS: Final = 4096
_GROUP_BYTES: Final = 32 << 20
_WRITE_ERRORS: Final = (OSError, ValueError)
_TEXTS: Final = ("id", "text", "finish_reason", "choice_text", "error")
_NUMBERS: Final = ("row", "prompt_tokens", "output_tokens", "choice")
_DOCUMENTS: Final = ("json", "logprobs", "tool_calls", "verdict", "input")
"""Columns of JSON text in a Parquet file."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is in the output."""

    num_bytes: int
    digest: str
    num_rows: int


class _Counted:
    """A binary file that knows how much was written and its digest."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.num_bytes = 0
        self.digest = hashlib.blake2b(digest_size=16)

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self.digest.update(view)
        self.num_bytes += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self.num_bytes

    closed = False

    def close(self) -> None:
        """The owner closes it."""


def check_place(config: ScoreConfig) -> None:
    """Raises SettingsError if nothing can be written there."""
    path = config.output.path
    if "://" in path:
        locations.filesystem(path)
        return
    place = Path(path)
    if place.is_dir():
        raise errors.SettingsError(f"output.path: {path} is a folder; name a file")
    folder = place.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise errors.SettingsError(f"output.path: {path}: {folder} cannot be written to")


def is_there(config: ScoreConfig, num_bytes: int) -> bool:
    """Whether the output has so many bytes."""
    system, path = locations.filesystem(config.output.path)
    try:
        return int(system.info(path)["size"] or 0) == num_bytes
    except (OSError, ValueError, KeyError):
        return False


def write(config: ScoreConfig, folder: JobFolder, shards: Sequence[Shard]) -> tuple[Written, int | None]:
    """The output, and no damaged shard; or what was written so far, none of it under the output's name, and the shard
    whose part is lost. Raises ScoringError."""
    damaged: list[int] = []
    path = config.output.path
    try:
        with _target(path) as target:
            lines = _pieces(folder, shards, damaged)
            if config.output_format == "parquet":
                _write_parquet(config, target, lines)
            else:
                for piece in lines:
                    target.write(piece)
            if damaged:
                raise _Abandoned
    except _Abandoned:
        return Written(0, "", 0), damaged[0]
    except _WRITE_ERRORS as e:
        raise errors.ScoringError(
            f"output.path: {path} cannot be written: {e}; all rows are kept in {folder.path}: set it right and start "
            "the same command again"
        ) from e
    rows = sum(shard.num_rows for shard in shards)
    return Written(target.num_bytes, target.digest.hexdigest(), rows), None


class _Abandoned(Exception):
    """The output is not to come into being."""


@contextlib.contextmanager
def _target(path: str) -> Iterator[_Counted]:
    """A new file, which takes its name at the end."""
    if "://" in path:
        # Object stores make an object at the close of a file; others get a second name first.
        system, inner = locations.filesystem(path)
        unfinished = f"{inner}.unfinished"
        try:
            with system.open(unfinished, "wb") as file:
                counted = _Counted(file)
                yield counted
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                system.rm(unfinished)
            raise
        system.mv(unfinished, inner)
        return
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    made = place.with_name(f".{place.name}.unfinished")
    try:
        with open(made, "wb") as local:
            counted = _Counted(local)
            yield counted
            local.flush()
            os.fsync(local.fileno())
        os.replace(made, place)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    parts.sync_folder(place.parent)


def _pieces(folder: JobFolder, shards: Sequence[Shard], damaged: list[int]) -> Iterator[bytes]:
    for shard in shards:
        record = folder.record(shard.number)
        try:
            if record is None:
                raise errors.ScoringError(f"shard {shard.number} has no record")
            yield from parts.copy_lines(folder.parts / record["part"], PartFacts(record["bytes"], record["digest"]))
        except errors.ScoringError:
            damaged.append(shard.number)
            return


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _write_parquet(config: ScoreConfig, target: BinaryIO | _Counted, pieces: Iterator[bytes]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = _schema(config)
    sink = pyarrow.PythonFile(target, mode="w")
    with pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        group: list[dict[str, Any]] = []
        size = 0
        for line in _lines(pieces):
            group.append(_columns(_loaded(line), schema.names))
            size += len(line)
            if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
                writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
                group, size = [], 0
        if group:
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _schema(config: ScoreConfig) -> Any:
    """The columns of a task, whatever is in the rows: so files of several jobs fit together."""
    import pyarrow as pa

    names = {
        "generate": ["text", "finish_reason", "prompt_tokens", "output_tokens", "json", "logprobs", "tool_calls"],
        "choices": ["choice", "choice_text", "choice_logprobs", "choice_tokens", "correct", "prompt_tokens"],
        "embed": ["embedding", "prompt_tokens"],
        "reward": ["score", "prompt_tokens"],
        "judge": ["score", "scaled_score", "verdict", "prompt_tokens", "output_tokens"],
    }[config.task]
    kinds = {
        **dict.fromkeys((*_TEXTS, *_DOCUMENTS), pa.string()),
        **dict.fromkeys(_NUMBERS, pa.int64()),
        "choice_logprobs": pa.list_(pa.float64()),
        "choice_tokens": pa.list_(pa.int64()),
        "correct": pa.bool_(),
        "embedding": pa.list_(pa.float32()),
        "score": pa.float64(),
        "scaled_score": pa.float64(),
    }
    kept = ["input"] if config.output.keep else []
    return pa.schema([(name, kinds[name]) for name in ["row", "id", *names, "error", *kept]])


def _columns(line: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    row = {name: line.get(name) for name in names}
    for name in _DOCUMENTS:
        if row.get(name) is not None:
            row[name] = json.dumps(row[name], ensure_ascii=False).encode("utf-8", "replace").decode()
    if row["id"] is not None and not isinstance(row["id"], str):
        row["id"] = json.dumps(row["id"])
    return row


def _loaded(line: bytes) -> dict[str, Any]:
    try:
        value: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:  # numbers of more than 64 bits, half a surrogate pair
        value = json.loads(line)
    return value
