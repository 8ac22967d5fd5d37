"""Fixtures of the engine's tests: an executor that tests control, a journal in memory, blobs in memory.

What is fake here is only where a task runs: `ScriptedExecutor` calls the real function through the real worker code, in
a thread of its own, and loses, holds back or kills attempts when a test says so. The real executors, stores and API
server are used by test_journal.py, test_kill_storm.py and tests/app.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.engine.driver import Driver
from michelangelo.engine.journal import Entry
from michelangelo.engine.memory import MemoryJournal, MemoryLog
from michelangelo.engine.surroundings import Surroundings
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.uniflow.workflow import Workflow
from michelangelo.worker.call import Caller


class ScriptedExecutor:
    """Runs attempts in threads. A task in `lost` is lost that many times after it ran, one in `held` waits."""

    def __init__(self, caller: Caller, *, capacity: int = 4) -> None:
        self.name = "process"
        self.capacity = capacity
        self.started: list[str] = []
        """Names of the functions called, in order of their starts."""
        self.lost: dict[str, int] = {}
        self.held: dict[str, threading.Event] = {}
        self.launched = threading.Semaphore(0)
        self._caller = caller
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._targets: dict[str, str] = {}
        self._unreported: set[str] = set()
        self._lock = threading.Lock()

    def submit(self, attempt: Attempt) -> None:
        name = attempt.target.qualname
        self.started.append(name)
        with self._lock:
            self._targets[attempt.id] = name
            self._unreported.add(attempt.id)
        self.launched.release()
        if name in self.held:
            threading.Thread(target=self._run_held, args=(attempt,), daemon=True).start()
        else:
            self._run(attempt)

    def _run_held(self, attempt: Attempt) -> None:
        self.held[attempt.target.qualname].wait(30.0)
        self._run(attempt)

    def _run(self, attempt: Attempt) -> None:
        if attempt.id in self._cancelled:
            return
        outcome = self._caller(attempt)
        if self.lost.get(attempt.target.qualname, 0) > 0:
            self.lost[attempt.target.qualname] -= 1
            outcome = Outcome(attempt.id, AttemptState.LOST)
        self._report(outcome)

    def _report(self, outcome: Outcome) -> None:
        with self._lock:
            if outcome.id not in self._unreported:
                return
            self._unreported.discard(outcome.id)
        self._outcomes.put(outcome)

    def poll(self, timeout_seconds: float) -> Sequence[Outcome]:
        try:
            outcome = self._outcomes.get(timeout=timeout_seconds)
        except queue.Empty:
            return []
        return [outcome] if outcome is not None else []

    def cancel(self, attempt_id: str, *, grace_seconds: float = 5.0) -> None:
        self._cancelled.add(attempt_id)
        self._report(Outcome(attempt_id, AttemptState.KILLED))

    def wake(self) -> None:
        self._outcomes.put(None)

    def close(self) -> None:
        for event in self.held.values():
            event.set()


@dataclasses.dataclass
class Bench:
    """One run's journal with whatever drives it; `drive` may be called again, as a new driver that resumes."""

    log: MemoryLog
    executor: ScriptedExecutor
    blobs: MemoryBlobStore
    drivers: int = 0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def driver(self, *, accept_code: bool = False) -> Driver:
        self.drivers += 1
        name = f"driver-{self.drivers}"
        around = Surroundings(
            run="run-1",
            journal=MemoryJournal(self.log, driver=name),
            executors={"process": self.executor},
            blobs=self.blobs,
            driver=name,
            **self.options,
        )
        return Driver(around, accept_code=accept_code)

    def drive(self, workflow: Workflow[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.driver().execute(workflow, args, kwargs)

    @property
    def entries(self) -> list[Entry]:
        return sorted(self.log.entries.values(), key=lambda entry: (entry.completion or 1_000_000, entry.attempt))

    def forget(self, keep: Callable[[Entry], bool]) -> None:
        """Cut the journal back, as if its driver had died earlier."""
        self.log.entries = {key: entry for key, entry in self.log.entries.items() if keep(entry)}
        self.log.versions = dict.fromkeys(self.log.entries, 1)


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest.fixture
def bench(blobs: MemoryBlobStore) -> Iterator[Bench]:
    executor = ScriptedExecutor(Caller(lambda: blobs))
    yield Bench(MemoryLog(), executor, blobs)
    executor.close()
