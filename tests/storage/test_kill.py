"""`kill -9` at random points: what was acknowledged is there, nothing is half there, watchers see everything once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import Event, Record

SEED = int(os.environ.get("STORAGE_KILL_SEED") or random.SystemRandom().randrange(1 << 32))
"""Printed when a test fails; set the variable to repeat it (what is random in time stays so)."""


class Nursery:
    """A process that starts and kills our children."""

    def __init__(self, process: subprocess.Popen[str], database: Path) -> None:
        self.process = process
        self.database = database

    def start(self, role: str, file: Path, **options: Any) -> int:
        return self._ask({"do": "start", "role": role, "database": str(self.database), "file": str(file), **options})

    def kill(self, pid: int, after_seconds: float) -> int:
        return self._ask({"do": "kill", "pid": pid, "after_seconds": after_seconds})

    def _ask(self, command: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def nursery(database: Path) -> Iterator[Nursery]:
    command = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Nursery(process, database)


def test_writers_and_watchers_survive_20_kills(nursery: Nursery, database: Path, tmp_path: Path) -> None:
    storm(nursery, database, tmp_path, rounds=20)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_writers_and_watchers_survive_a_storm_of_kills(
    nursery: Nursery, database: Path, tmp_path: Path, part: int
) -> None:
    storm(nursery, database, tmp_path, rounds=26, part=part)


def test_database_whose_makers_are_killed_is_made_anew(nursery: Nursery, tmp_path: Path) -> None:
    make_and_kill(nursery, tmp_path, rounds=20)


@pytest.mark.slow
def test_database_whose_makers_are_killed_is_made_anew_many_times(nursery: Nursery, tmp_path: Path) -> None:
    make_and_kill(nursery, tmp_path, rounds=600)


def make_and_kill(nursery: Nursery, folder: Path, *, rounds: int) -> None:
    """Four processes make one file at once; none of them may end by an error before it is killed."""
    print(f"STORAGE_KILL_SEED={SEED} repeats this")
    chance = random.Random(SEED)
    for number in range(rounds):
        nursery.database = folder / f"{number}.db"
        children = [nursery.start("write", folder / f"{number}-{n}", seed=f"{SEED} {n}") for n in range(4)]
        for child in children:
            assert nursery.kill(child, chance.choice([0, 0.001, 0.003]) * chance.random()) == -9
        with contextlib.closing(SqliteStore(nursery.database)) as store:
            acknowledged = [line for n in range(4) for line in lines(folder / f"{number}-{n}")]
            assert {line[0] for line in acknowledged} <= {
                e.record.revision for e in store.events("/", after=0, limit=0)
            }


def storm(nursery: Nursery, database: Path, folder: Path, *, rounds: int, part: int = 0) -> None:
    print(f"STORAGE_KILL_SEED={SEED} repeats this")
    chance = random.Random(f"{SEED} {part}")
    checked = 0
    for number in range(rounds):
        watched = [folder / f"watcher-{n}" for n in range(2)]
        written = [folder / f"writer-{number}-{n}" for n in range(2)]
        children = [nursery.start("write", file, seed=f"{SEED} {part} {file.name}") for file in written]
        children += [nursery.start("watch", file, position=position(file)) for file in watched]
        chance.shuffle(children)
        for child in children:
            assert nursery.kill(child, chance.choice([0, 0.003, 0.01, 0.03]) * chance.random() * 2) == -9
        checked = check(database, written, watched, checked)
    assert checked > rounds
    for file in watched:
        watch_to_the_end(database, file)


def check(database: Path, written: Sequence[Path], watched: Sequence[Path], checked: int) -> int:
    """Compare the log with what the children said; the newest revision."""
    with contextlib.closing(SqliteStore(database)) as store:
        events = store.events("/", after=0, limit=0)
        log = {event.record.revision: event.record for event in events}
        assert list(log) == list(range(1, store.revision() + 1))
        for event in events[checked:]:
            assert is_whole(event.record)
        for revision, key, digest in (line for file in written for line in lines(file)):
            assert (log[revision].key, hashlib.sha256(log[revision].value).hexdigest()) == (key, digest)
        state: dict[str, Record] = {}
        for event in events:
            assert event.previous == state.pop(event.record.key, None)
            if not event.deleted:
                state[event.record.key] = event.record
        assert list(store.list("/").records) == [state[key] for key in sorted(state)]
        expected = [seen(event) for event in events if event.record.key.startswith("/a/")]
        for file in watched:
            saw = lines(file)
            assert saw == expected[: len(saw)]
        with contextlib.closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        return len(events)


def watch_to_the_end(database: Path, file: Path) -> None:
    with contextlib.closing(SqliteStore(database)) as store:
        rest = [seen(event) for event in store.events("/a/", after=position(file), limit=0)]
        assert lines(file) + rest == [seen(event) for event in store.events("/a/", after=0, limit=0)]


def test_watcher_sees_the_events_of_another_process_once_and_in_order(
    nursery: Nursery, database: Path, tmp_path: Path
) -> None:
    with contextlib.closing(SqliteStore(database)) as store:
        watcher = nursery.start("watch", tmp_path / "watcher", position=0)
        found = watch_while_writing(nursery, store, tmp_path)
        assert found == list(range(1, store.revision() + 1))
        nursery.kill(watcher, 0)
        watch_to_the_end(database, tmp_path / "watcher")


def watch_while_writing(nursery: Nursery, store: SqliteStore, folder: Path) -> Sequence[int]:
    """The revisions in the order in which they were seen, while two processes write; a last key of each ends it."""
    news = threading.Event()
    stop = store.subscribe(lambda _: news.set())
    found: list[int] = []
    writers = {nursery.start("write", folder / f"writer-{n}", seed=f"{SEED} {n}", count=150) for n in range(2)}
    done = {f"/done/{writer}" for writer in writers}
    while done:
        assert news.wait(20)
        news.clear()
        while events := store.events("/", after=found[-1] if found else 0):
            found += [event.record.revision for event in events]
            done -= {event.record.key for event in events}
    stop()
    return found


def position(file: Path) -> int:
    saw = lines(file)
    return int(saw[-1][0]) if saw else 0


def lines(file: Path) -> list[list[Any]]:
    """What a child said before it was killed; a line that the kill cut off is removed, it was not said."""
    if not file.exists():
        return []
    said = file.read_bytes()
    whole = said.rfind(b"\n") + 1
    if whole < len(said):
        os.truncate(file, whole)
    return [json.loads(line) for line in said[:whole].splitlines()]


def is_whole(record: Record) -> bool:
    digest, body = record.value[:32], record.value[32:]
    return hashlib.sha256(body).digest() == digest and body.startswith(f"{record.key} ".encode())


def seen(event: Event) -> list[Any]:
    """One event as a watcher writes it down."""

    def digest(record: Record | None) -> str:
        return hashlib.sha256(record.value).hexdigest() if record else ""

    record = event.record
    return [record.revision, record.key, digest(record), event.deleted, digest(event.previous)]
