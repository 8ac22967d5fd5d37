"""What the agent of a Ray holds of an attempt: a log is whole when its own connection has come and gone."""

from __future__ import annotations

import socket
from pathlib import Path

from michelangelo.executors import wire
from michelangelo.executors.base import Attempt, CallTarget
from michelangelo.executors.ray.request import Request
from michelangelo.worker.ray.item import Item


def make(log_path: str) -> Item:
    attempt = Attempt(id="a-1", target=CallTarget("flow.py", "flow", "task"), arguments={"args": [], "kwargs": {}})
    message = {
        "attempt": wire.attempt_to_json(attempt),
        "request": Request({"CPU": 1.0}).to_json(),
        "timeout_seconds": 0.0,
        "memory_bytes": 0,
        "log_path": log_path,
    }
    return Item(message, 0)


def test_log_whose_connection_is_still_to_come_is_not_whole(tmp_path: Path) -> None:
    item = make(str(tmp_path / "a.log"))
    assert not item.has_whole_log
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    item.take_log(ours)
    theirs.sendall(b"hello\n")
    theirs.close()
    is_whole = [item.has_whole_log]
    item.close()
    assert [*is_whole, item.has_whole_log] == [False, True]
    assert (tmp_path / "a.log").read_text() == "hello\n"


def test_attempt_without_a_log_has_nothing_to_wait_for() -> None:
    item = make("")
    assert item.has_whole_log
    item.close()
