"""The state of a job on the disk: what it is, which shards are done, what became of engines; and who works on it.

    job.json        what is scored, with what, into what: written once
    shards.jsonl    the shards, a line each with its checksum: written once
    done/N.json     one per finished shard, named by the first who finished it: the one point where rows become done
    parts/, rows/   what `parts` writes, named by shard and by who wrote it
    events.jsonl    sessions, lost engines and the rows that were in flight then
    lock            held by the driver and its processes; the kernel frees it when they end

Every file appears whole or not at all (a new name, synced, then renamed or linked), but events.jsonl, whose lines have
checksums. It knows neither rows nor engines.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import orjson

from michelangelo import errors
from michelangelo.llm.scorer import parts
from michelangelo.llm.scorer.sharding import Division, FileFacts, Shard

__all__ = ["Head", "JobFolder", "Lock", "differences", "write_atomically"]

_VERSION: Final = 1
_ORPHAN_SECONDS: Final = 30.0
"""Processes of a driver that was killed end by themselves as soon as they notice."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a job is."""

    identity: Mapping[str, Any]
    """Of the configuration: `config.identity`."""
    files: tuple[FileFacts, ...]
    num_rows: int
    num_shards: int
    output: str

    def to_json(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "identity": self.identity,
            "files": [file.to_json() for file in self.files],
            "numRows": self.num_rows,
            "numShards": self.num_shards,
            "output": self.output,
        }

    @property
    def digest(self) -> str:
        return hashlib.blake2b(orjson.dumps(self.to_json(), option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


class JobFolder:
    """One job's folder. Writing is the driver's; only `commit` is anybody's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = path / "rows"
        self.parts = path / "parts"
        self.done = path / "done"
        self.logs = path / "logs"

    # --- what the job is

    def create(self, head: Head, division: Division) -> None:
        """The folder is a job's once this has returned; before, starting again makes it anew."""
        for folder in (self.rows, self.parts, self.done, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "shards.jsonl", (_line(shard.to_json()) for shard in division.shards))
        write_atomically(self.path / "job.json", [orjson.dumps(head.to_json(), option=orjson.OPT_INDENT_2) + b"\n"])

    def head(self) -> Head | None:
        """None: no job was begun here. Raises ScoringError if the file is damaged or of a newer version."""
        file = self.path / "job.json"
        try:
            value = orjson.loads(file.read_bytes())
            if value["version"] > _VERSION:
                raise errors.ScoringError(f"{file} was written by a newer version: use that, or another output")
            files = tuple(FileFacts.from_json(one) for one in value["files"])
            return Head(value["identity"], files, value["numRows"], value["numShards"], value["output"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise self._damaged(file, e) from e

    def shards(self) -> tuple[Shard, ...]:
        """Raises ScoringError if a line is damaged."""
        file = self.path / "shards.jsonl"
        try:
            with open(file, "rb") as lines:
                return tuple(Shard.from_json(_value(line)) for line in lines)
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise self._damaged(file, e) from e

    def _damaged(self, file: Path, error: Exception) -> errors.ScoringError:
        return errors.ScoringError(
            f"{file} cannot be used: {error}; start over with --fresh, which discards what was scored"
        )

    # --- shards that are done

    def commit(self, shard: int, record: Mapping[str, Any]) -> bool:
        """Say that a shard is done. False: somebody else had said so before, and his word stands."""
        final = self.done / f"{shard:06d}.json"
        mine = self.done / f".{shard:06d}.{os.getpid()}.{threading.get_ident()}"
        with open(mine, "wb") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(mine, final)
        except FileExistsError:
            return False
        finally:
            mine.unlink()
        parts.sync_folder(self.done)
        return True

    def record(self, shard: int) -> dict[str, Any] | None:
        """What was said when the shard was done; None: it is not. A damaged record counts as none, and is removed."""
        file = self.done / f"{shard:06d}.json"
        try:
            return _value(file.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            file.unlink()
            return None

    def discard(self, shard: int) -> None:
        """It is to be scored again: its part is damaged."""
        (self.done / f"{shard:06d}.json").unlink(missing_ok=True)

    def done_shards(self) -> set[int]:
        """By the names of the records."""
        with contextlib.suppress(FileNotFoundError):
            return {int(file.name[:-5]) for file in self.done.iterdir() if not file.name.startswith(".")}
        return set()

    def row_logs(self) -> dict[int, list[Path]]:
        """By shard, in the order of their names, which is that of the sessions."""
        found: dict[int, list[Path]] = {}
        with contextlib.suppress(FileNotFoundError):
            for file in sorted(self.rows.iterdir()):
                found.setdefault(int(file.name.partition("-")[0]), []).append(file)
        return found

    # --- events

    def add_event(self, kind: str, **values: Any) -> None:
        """Appended, and on the disk when this returns."""
        with open(self.path / "events.jsonl", "ab") as file:
            if file.tell() and not _ends_with_newline(self.path / "events.jsonl"):
                file.write(b"\n")  # after a torn line
            file.write(_line({"kind": kind, "at": time.time(), **values}))
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> list[dict[str, Any]]:
        """In order; torn and damaged lines are left out."""
        found = []
        with contextlib.suppress(FileNotFoundError), open(self.path / "events.jsonl", "rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    found.append(_value(line))
        return found

    # --- the end

    def finish(self, record: Mapping[str, Any]) -> None:
        """The output is there. What is needed no more is removed."""
        write_atomically(self.path / "finished.json", [_line(record)])
        for folder in (self.rows, self.parts):
            shutil.rmtree(folder, ignore_errors=True)

    def finished(self) -> dict[str, Any] | None:
        try:
            return _value((self.path / "finished.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def clear(self) -> None:
        """Everything but the lock and the reports. The head goes first: what is half removed is no job."""
        for name in ("job.json", "shards.jsonl", "finished.json", "events.jsonl", "prediction.json"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.done, self.rows, self.parts, self.logs):
            shutil.rmtree(folder, ignore_errors=True)


class Lock:
    """One driver per job. Its processes inherit the handle, so that the lock is free when the last one has ended."""

    def __init__(self, path: Path) -> None:
        """Raises ScoringError that names who has it."""
        path.mkdir(parents=True, exist_ok=True)
        self._path = path / "lock"
        self._file = open(self._path, "a+b")  # noqa: SIM115
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while not self._is_taken():
            owner = self._owner()
            if _is_alive(owner) or time.monotonic() > deadline:
                self._file.close()
                raise errors.ScoringError(_refusal(path, owner))
            # Its driver is dead: its processes are about to notice. Nothing can be waited for with a deadline here.
            threading.Event().wait(0.02)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(orjson.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
        self._file.flush()

    @property
    def handle(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _owner(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError, OSError):
            value = orjson.loads(self._path.read_bytes())
            return value if isinstance(value, dict) else {}
        return {}


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """`sampling.max_tokens was 16, is 32`, one per leaf that differs."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(key for key in now if key not in before)]:
            yield from differences(before.get(name), now.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{path}.{number}")
    elif before != now:
        yield f"{path} was {_shown(before)}, is {_shown(now)}"


def write_atomically(path: Path, pieces: Iterable[bytes]) -> None:
    """The file is there whole and on the disk, or as it was."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    parts.sync_folder(path.parent)


def _line(value: Mapping[str, Any]) -> bytes:
    payload = orjson.dumps(value)
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def _value(line: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    payload = line[9:].rstrip(b"\n")
    if not line.endswith(b"\n") or int(line[:8], 16) != zlib.crc32(payload):
        raise ValueError("a line does not fit its checksum")
    value = orjson.loads(payload)
    if not isinstance(value, dict):
        raise ValueError("a line is no object")
    return value


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _is_alive(owner: Mapping[str, Any]) -> bool:
    """Of another machine nothing is known, so it is."""
    if owner.get("host") != socket.gethostname():
        return bool(owner)
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return False
    except PermissionError:
        return True
    # A killed one that nobody has waited for yet answers too.
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{owner['pid']}/stat").read_text(encoding="utf-8", errors="replace")
    return True


def _refusal(path: Path, owner: Mapping[str, Any]) -> str:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    return f"{path}: {who} works on this job; wait for it or end it, or score into another output"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
