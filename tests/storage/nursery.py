"""Run by test_kill.py as a process of its own: forks writers and watchers from one warm interpreter, and kills them.

Commands come as JSON lines on stdin, one answer line each on stdout. A child makes its store after the fork, and
tells what it did in a file, a line at a time: what a killed process had said stays. The kill may cut the last line off
(the kernel looks for it at each page of a `write`); such a line does not count, and its reader removes it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from typing import Any

from michelangelo import errors
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import ABSENT, Event, Record, Write

__all__ = ["value_for"]

KEYS = 40
_PR_SET_PDEATHSIG = 1


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "start":
            answer = start(command)
        else:
            answer = kill(command["pid"], command["after_seconds"])
        print(answer, flush=True)


def start(command: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    if sys.platform == "linux":
        # However a test run ends, nothing of it goes on writing.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    code = 1
    try:
        {"write": write, "watch": watch}[command["role"]](command)
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def kill(pid: int, after_seconds: float) -> int:
    """The exit code; negative where a signal ended the child."""
    time.sleep(after_seconds)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def write(command: dict[str, Any]) -> None:
    """Two threads that create, change and delete, some writes alone and some in a group, until killed or until
    `count` writes each; then the key /done/<process id> appears."""
    store = SqliteStore(command["database"])
    file = os.open(command["file"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    count = command.get("count", 1 << 40)
    threads = [
        threading.Thread(target=write_on, args=(store, file, random.Random(f"{command['seed']} {n}"), count))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.write(Write(f"/done/{os.getpid()}", b"")).result()
    store.close()


def write_on(store: SqliteStore, file: int, chance: random.Random, count: int) -> None:
    while count > 0:
        writes = [random_write(store, chance) for _ in range(chance.choice([1, 1, 1, 5, 30]))]
        count -= len(writes)
        for future in [store.write(each) for each in writes]:
            try:
                record = future.result()
            except errors.ApiError:
                continue
            tell(file, [record.revision, record.key, hashlib.sha256(record.value).hexdigest()])


def random_write(store: SqliteStore, chance: random.Random) -> Write:
    key = f"/{chance.choice('ab')}/{chance.randrange(KEYS)}"
    if chance.random() < 0.2:
        return Write(key, None)
    expected: int | None = None
    if chance.random() < 0.5:
        record = store.get(key)
        expected = record.revision if record else ABSENT
    return Write(key, value_for(key, chance), expected, frozenset([f"odd={chance.randrange(2)}"]))


def value_for(key: str, chance: random.Random) -> bytes:
    """Names its key and holds its own digest, so that half a value is known by its looks."""
    body = f"{key} ".encode() + chance.randbytes(chance.choice([10, 300, 3000, 20_000]))
    return hashlib.sha256(body).digest() + body


def watch(command: dict[str, Any]) -> None:
    """Go on after the last event of the file; its lines are the position as well."""
    store = SqliteStore(command["database"])
    file = os.open(command["file"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    news = threading.Event()
    store.subscribe(lambda _: news.set())
    position = command["position"]
    while True:
        news.clear()
        events = store.events("/a/", after=position)
        for event in events:
            tell(file, seen(event))
            position = event.record.revision
        if not events:
            news.wait()


def seen(event: Event) -> list[Any]:
    def digest(record: Record | None) -> str:
        return hashlib.sha256(record.value).hexdigest() if record else ""

    record = event.record
    return [record.revision, record.key, digest(record), event.deleted, digest(event.previous)]


def tell(file: int, what: list[Any]) -> None:
    os.write(file, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
