"""Fixtures of the engine's tests: an executor that tests control, a journal in memory, blobs in memory.

What is fake here is only where a task runs: `ScriptedExecutor` calls the real function through the real worker code, in
a thread of its own, and loses, holds back or kills attempts when a test says so. The real executors, stores and API
server are used by test_journal.py, test_kill_storm.py and tests/app.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.client.client import Object
from michelangelo.engine import conductor
from michelangelo.engine.driver import Driver
from michelangelo.engine.journal import Entry
from michelangelo.engine.memory import MemoryJournal, MemoryLog
from michelangelo.engine.surroundings import Surroundings
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.meta import labels
from michelangelo.storage.memory import MemoryStore
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


@dataclasses.dataclass
class Site:
    """An API server, and executors for the runs on it."""

    client: InProcessClient
    blobs: MemoryBlobStore
    executors: list[ScriptedExecutor] = dataclasses.field(default_factory=list)

    def create(self, name: str = "run-1", **spec: Any) -> Object:
        manifest = {"type": "Uniflow", "filePath": "flow.py", "uniflowFunction": "flow"}
        return self.client.create(
            {
                "apiVersion": "michelangelo.api/v2",
                "kind": "PipelineRun",
                "metadata": {"name": name, "namespace": "team"},
                "spec": {"pipelineSpec": {"manifest": manifest}, **spec},
            }
        )

    def executor(self) -> ScriptedExecutor:
        self.executors.append(ScriptedExecutor(Caller(lambda: self.blobs)))
        return self.executors[-1]

    def conduct(
        self,
        workflow: Workflow[..., Any],
        *args: Any,
        run: str = "run-1",
        executor: ScriptedExecutor | None = None,
        **means: Any,
    ) -> Any:
        found = self.client.get("PipelineRun", run, namespace="team")
        chosen = conductor.Means({"process": executor or self.executor()}, self.blobs, **means)
        return conductor.conduct(self.client, found, workflow, args, {}, chosen)

    def status(self, run: str = "run-1") -> Object:
        status: Object = self.client.get("PipelineRun", run, namespace="team").get("status") or {}
        return status

    def task_runs(self) -> list[Object]:
        return list(self.client.list("TaskRun", namespace="team").items)

    def signal(self, name: str, payload: Any, run: str = "run-1") -> None:
        self.client.create(
            {
                "apiVersion": "michelangelo.api/v2",
                "kind": "Signal",
                "metadata": {
                    "generateName": "signal-",
                    "namespace": "team",
                    "labels": {labels.PIPELINE_RUN: run, labels.SIGNAL: name},
                },
                "spec": {"pipelineRun": run, "name": name, "payload": payload},
            }
        )


@pytest.fixture
def site() -> Iterator[Site]:
    """The project `team` on a server of its own."""
    store = MemoryStore()
    client = InProcessClient(ApiServer(store))
    client.create({"apiVersion": "michelangelo.api/v2", "kind": "Project", "metadata": {"name": "team"}, "spec": {}})
    made = Site(client, MemoryBlobStore())
    yield made
    for executor in made.executors:
        executor.close()
    client.close()
    store.close()


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """`call` in a thread; what it returned or raised is in the list afterwards."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except errors.MichelangeloError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def until(reached: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20.0
    while not (found := reached()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return found
