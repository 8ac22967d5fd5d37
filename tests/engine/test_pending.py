"""Attempts that their executor cannot start: what is recorded, what is told, and that nobody waits for ever."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence

import pytest
from tests.engine.conftest import Bench, ScriptedExecutor

from michelangelo import errors, uniflow
from michelangelo.engine.journal import Entry, EntryState
from michelangelo.engine.status import StepSummaries
from michelangelo.executors.base import Attempt


class CrowdedExecutor(ScriptedExecutor):
    """Holds the attempts of tasks in `reasons` back, for these reasons, until `make_room`."""

    def __init__(self, executor: ScriptedExecutor) -> None:
        super().__init__(executor._caller)
        self.reasons: dict[str, str] = {}
        self._waiting: dict[str, Attempt] = {}

    def submit(self, attempt: Attempt) -> None:
        if attempt.target.qualname not in self.reasons:
            super().submit(attempt)
            return
        self._unreported.add(attempt.id)
        self._waiting[attempt.id] = attempt
        self.wake()

    def pending(self) -> Mapping[str, str]:
        return {name: self.reasons[one.target.qualname] for name, one in self._waiting.items()}

    def cancel(self, attempt_id: str, *, grace_seconds: float = 5.0) -> None:
        self._waiting.pop(attempt_id, None)
        super().cancel(attempt_id, grace_seconds=grace_seconds)

    def make_room(self) -> None:
        attempts, self._waiting = self._waiting, {}
        for attempt in attempts.values():
            super().submit(attempt)


class Watcher:
    """Calls `on_pending` when it is told of an attempt that waits, and keeps all it is told."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.was_pending = threading.Event()

    def restored(self, entries: Sequence[Entry]) -> None: ...

    def changed(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.details.get("pending"):
            self.was_pending.set()


@uniflow.task(pending_timeout_seconds=0.05)
def too_large() -> int:
    return 1


@uniflow.task
def patient() -> int:
    return 2


@uniflow.workflow
def hopeless() -> int:
    return too_large()


@uniflow.workflow
def waiting() -> int:
    return patient()


@pytest.fixture
def crowded(bench: Bench) -> CrowdedExecutor:
    executor = CrowdedExecutor(bench.executor)
    bench.executor = executor
    return executor


def test_attempt_without_room_is_given_up_with_the_reason(bench: Bench, crowded: CrowdedExecutor) -> None:
    crowded.reasons["too_large"] = "needs 64 CPU; the cluster has 8, 3 free"
    with pytest.raises(errors.PendingTimeoutError, match=r"needs 64 CPU; the cluster has 8, 3 free.*ask for less"):
        bench.drive(hopeless)
    (entry,) = bench.entries
    assert (entry.state, entry.final) == (EntryState.FAILED, True)
    assert crowded.started == []


def test_pending_attempt_is_recorded_until_it_starts(bench: Bench, crowded: CrowdedExecutor) -> None:
    crowded.reasons["patient"] = "waits for 1 GPU; 0 of 2 are free"
    watcher = Watcher()
    bench.options["observers"] = (watcher,)

    def make_room() -> None:
        assert watcher.was_pending.wait(30)
        crowded.make_room()
        crowded.wake()

    thread = threading.Thread(target=make_room)
    thread.start()
    assert bench.drive(waiting) == 2
    thread.join()
    reasons = [entry.details.get("pending") for entry in watcher.entries]
    assert "waits for 1 GPU; 0 of 2 are free" in reasons
    assert [entry.state for entry in bench.entries] == [EntryState.SUCCEEDED]


def test_given_up_attempt_may_be_retried(bench: Bench, crowded: CrowdedExecutor) -> None:
    crowded.reasons["too_large"] = "no room"
    with pytest.raises(errors.PendingTimeoutError):
        bench.drive(retried)
    assert [entry.attempt for entry in sorted(bench.entries, key=lambda entry: entry.attempt)] == [1, 2]


@uniflow.workflow
def retried() -> int:
    return too_large.with_overrides(retry_attempts=1)()


def test_summary_of_a_pending_step_says_why(bench: Bench, crowded: CrowdedExecutor) -> None:
    bench.drive(waiting)
    (entry,) = bench.entries
    summaries = StepSummaries("run-1")
    running = dataclasses.replace(
        entry, state=EntryState.RUNNING, final=False, ended_at="", details={"pending": "no room"}
    )
    summaries.add(running)
    (shown,) = summaries.shown()
    assert (shown["state"], shown["message"]) == ("Pending", "no room")
    assert summaries.counts()["pending"] == 1
    summaries.add(dataclasses.replace(running, details={}))
    (shown,) = summaries.shown()
    assert shown["state"] == "Running"
    assert "message" not in shown
