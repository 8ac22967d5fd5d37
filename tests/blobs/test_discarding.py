"""Writers and collectors of one store, in every order of their single steps, and in real processes at once.

The model is that of app/blob_collector.py: a writer puts a blob, then names it; a collector lists the names, then
discards what is old and was not named. Nothing that is named may ever be missing.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.blobs.s3_server import S3

from michelangelo.blobs import local
from michelangelo.blobs import s3 as s3_module
from michelangelo.blobs.blob_store import Collectable, digest_of
from michelangelo.blobs.local import LocalBlobStore

DATA = b"contested"
DIGEST = digest_of(DATA)
OLD = 7200.0
AGE = 3600.0


class Turns:
    """Threads that go one step at a time: each waits at `pause` until the test lets it go on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._allowed: dict[str, int] = {}
        self._waiting: dict[str, bool] = {}
        self._names: dict[int, str] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._ended: set[str] = set()
        self.failures: list[BaseException] = []

    def start(self, name: str, function: Callable[[], None]) -> None:
        def run() -> None:
            self._names[threading.get_ident()] = name
            try:
                self.pause()
                function()
            except BaseException as error:  # noqa: BLE001 - the test shows it
                self.failures.append(error)
            finally:
                with self._changed:
                    self._ended.add(name)
                    self._changed.notify_all()

        self._allowed[name], self._waiting[name] = 0, False
        self._threads[name] = threading.Thread(target=run)
        self._threads[name].start()
        self._settle(name)

    def pause(self, *_: Any) -> None:
        name = self._names.get(threading.get_ident())
        if name is None:
            return
        with self._changed:
            self._waiting[name] = True
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._allowed[name] > 0, 30)
            self._allowed[name] -= 1
            self._waiting[name] = False

    def step(self, name: str) -> bool:
        """One step of that thread; False when it has ended."""
        with self._changed:
            if name in self._ended:
                return False
            self._allowed[name] += 1
            self._waiting[name] = False
            self._changed.notify_all()
        self._settle(name)
        return True

    def finish(self) -> None:
        while any([self.step(name) for name in self._threads]):  # noqa: C419 - a step of each
            pass
        for thread in self._threads.values():
            thread.join(30)

    def _settle(self, name: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting[name] or name in self._ended, 30)


def schedules(length: int) -> Iterator[tuple[str, ...]]:
    """All orders of so many steps of the writer and the collector; what is left runs afterwards."""
    yield from itertools.product(("writer", "collector"), repeat=length)


def play(
    schedule: tuple[str, ...],
    *,
    write: Callable[[], bool],
    collector: Collectable,
    has: Callable[[], bool],
    turns: Turns,
) -> None:
    named: set[str] = set()

    def writing() -> None:
        if write():
            turns.pause()
            named.add(DIGEST)

    def collecting() -> None:
        started = collector.now()
        turns.pause()
        found = set(named)
        turns.pause()
        if DIGEST not in found:
            collector.discard([DIGEST], started - AGE)

    turns.start("writer", writing)
    turns.start("collector", collecting)
    for name in schedule:
        turns.step(name)
    turns.finish()
    assert turns.failures == []
    assert has() or not named, f"lost by {schedule}"


@pytest.mark.parametrize("way", ["put", pytest.param("touch", marks=pytest.mark.slow)])
def test_s3_blob_that_is_named_is_not_lost_when_one_overtakes_the_other(s3: S3, way: str) -> None:
    """Every request is a step. The writer begins, the collector comes up to its look or its deletion, the writer goes
    on, the collector ends: around the moments that count."""
    blocks = itertools.product((0, 2), (4, 5, 6), (3, 4, 5))
    play_in_s3(
        s3, way, [("writer",) * one + ("collector",) * other + ("writer",) * rest for one, other, rest in blocks]
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["put", "touch"])
def test_s3_blob_that_is_named_is_never_lost_in_any_order_of_requests(s3: S3, way: str) -> None:
    play_in_s3(s3, way, [order for order in schedules(12) if 4 <= order.count("collector") <= 8][::7])


def play_in_s3(s3: S3, way: str, orders: list[tuple[str, ...]]) -> None:
    bucket = s3.bucket()
    turns = Turns()
    store, writer, collector = (s3.store(bucket, sleep=lambda _: turns.pause()) for _ in range(3))
    for one in (writer, collector):
        one._requests = _Stepped(one._requests, lambda: turns.pause())  # type: ignore[assignment]  # the same, stepwise
    ways: dict[str, Callable[[], bool]] = {
        "put": lambda: bool(writer.put(DATA)),
        "touch": lambda: writer.touch(DIGEST),
    }
    for order in orders:
        store.put(DATA)
        s3.age(bucket, DIGEST, OLD)
        turns = Turns()
        play(order, write=ways[way], collector=collector, has=lambda: store.has(DIGEST), turns=turns)


class _Stepped:
    """Requests of which each is a step."""

    def __init__(self, requests: Any, pause: Callable[[], None]) -> None:
        self._requests = requests
        self._pause = pause

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._pause()
        return self._requests(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)


@pytest.mark.parametrize("way", ["put", "put_file", "touch"])
def test_local_blob_that_is_named_is_never_lost_in_any_order_of_calls(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call to the system in which writer and collector could meet is a step: opening and locking, looking,
    touching, linking, removing."""
    current = Turns()
    source = tmp_path / "source"
    source.write_bytes(DATA)
    real = _System()

    def step(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            current.pause()
            return getattr(real, name)(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "link", step("link"))
    monkeypatch.setattr(os, "utime", step("utime"))
    monkeypatch.setattr(local, "_is_at", step("is_at"))
    monkeypatch.setattr(fcntl, "flock", real.try_flock(lambda: current.pause()))
    store = LocalBlobStore(tmp_path / "blobs")
    ways: dict[str, Callable[[], bool]] = {
        "put": lambda: bool(store.put(DATA)),
        "put_file": lambda: bool(store.put_file(source)),
        "touch": lambda: store.touch(DIGEST),
    }
    for order in schedules(9):
        current = Turns()
        store.put(DATA)
        path = Path(store.path(DIGEST))
        real.utime(path, (path.stat().st_mtime - OLD,) * 2)
        play(order, write=ways[way], collector=store, has=lambda: store.has(DIGEST), turns=current)


class _System:
    """The calls as they are."""

    def __init__(self) -> None:
        self.link, self.utime, self.is_at, self._flock = os.link, os.utime, local._is_at, fcntl.flock
        self._again = fcntl.LOCK_NB

    def try_flock(self, pause: Callable[[], None]) -> Callable[[Any, int], None]:
        """A lock that is waited for step by step, so that the holder can go on."""

        def flock(file: Any, how: int) -> None:
            while True:
                pause()
                try:
                    self._flock(file, how | self._again)
                except BlockingIOError:
                    continue
                return

        return flock


_WRITER = """
import os, sys
from michelangelo.blobs.opening import open_blob_store
url, names, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_blob_store(url)
for number in range(rounds):
    digest = store.put(b"blob %d" % (number % 5)).digest
    # The reference: visible at once, and for good.
    os.close(os.open(os.path.join(names, digest), os.O_CREAT))
    if not store.has(digest):
        sys.exit(f"lost {digest} in round {number}")
    os.unlink(os.path.join(names, digest))
"""
_COLLECTOR = """
import os, sys
from michelangelo.blobs.opening import open_blob_store
url, names, age, until = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
store = open_blob_store(url)
freed = 0
while not os.path.exists(until):
    started = store.now()
    named = set(os.listdir(names))
    old = [blob.digest for blob, _ in store.ages() if blob.digest not in named]
    freed += len(store.discard(old, started - age))
print(freed)
"""


def test_blobs_survive_collectors_in_other_processes(tmp_path: Path) -> None:
    """Each writer names what it has put, and must find it for as long as it is named. The age is shorter than any that
    is allowed, and longer than a writer takes from a put to the name."""
    names, until = tmp_path / "names", tmp_path / "until"
    names.mkdir()
    url = str(tmp_path / "blobs")
    collectors = [
        subprocess.Popen(
            [sys.executable, "-c", _COLLECTOR, url, names, "0.25", until], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    writer = subprocess.run(
        [sys.executable, "-c", _WRITER, url, names, "4000"], capture_output=True, text=True, timeout=120
    )
    until.touch()
    outputs = [one.communicate(timeout=60)[0] for one in collectors]
    assert writer.returncode == 0, writer.stderr
    assert all(one.returncode == 0 for one in collectors), outputs


def test_discard_of_many_blobs_goes_in_batches(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_BATCH", 5)
    bucket = s3.bucket()
    store = s3.store(bucket)
    digests = [store.put(b"%d" % number).digest for number in range(12)]
    for digest in digests:
        s3.age(bucket, digest, OLD)
    store.touch(digests[7])
    assert sorted(store.discard(digests, store.now() - AGE)) == sorted(set(digests) - {digests[7]})
    assert [blob.digest for blob in store.iterate()] == [digests[7]]
    assert len(s3.keys(bucket)) == 1, "no marker is left"
