"""Following a run to its end, also past what a quiet watch says."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from michelangelo.cli import progress
from michelangelo.cli.connection import Connection
from michelangelo.client.client import WatchEvent

TASK = {"metadata": {"name": "r-1"}, "spec": {"task": "train"}, "status": {"state": "Succeeded"}}
BOOKMARK = WatchEvent("BOOKMARK", {"kind": "TaskRun", "metadata": {"resourceVersion": "7"}})


class ScriptedWatch:
    """A watch that gives the events that it was made of."""

    def __init__(self, *events: WatchEvent) -> None:
        self._events = deque(events)

    def next(self, timeout_seconds: float | None = None) -> WatchEvent | None:
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        self._events.clear()


class ScriptedClient:
    """A server on which one run goes on for a while, and then ends."""

    def __init__(self, run: ScriptedWatch, tasks: ScriptedWatch) -> None:
        self._watches = {"PipelineRun": run, "TaskRun": tasks}

    def watch(self, kind: str, **_: Any) -> ScriptedWatch:
        return self._watches[kind]

    def list(self, _: str, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(items=[TASK])


def test_follow_passes_over_bookmarks(capsys: pytest.CaptureFixture[str]) -> None:
    running, done = ({"metadata": {"name": "r"}, "status": {"state": state}} for state in ("Running", "Succeeded"))
    client = ScriptedClient(
        ScriptedWatch(WatchEvent("ADDED", running), BOOKMARK, WatchEvent("MODIFIED", done)),
        ScriptedWatch(BOOKMARK, WatchEvent("ADDED", TASK), BOOKMARK),
    )
    link = cast(Connection, SimpleNamespace(client=client))
    assert progress.follow(link, "r", "demo") == done
    assert capsys.readouterr().err.count("train") == 1
