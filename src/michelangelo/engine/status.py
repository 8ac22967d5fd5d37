"""The status of a run: a bounded summary of its journal, written by its driver.

Never one write per step: the first when the run starts, then at most one per second, from a thread of its own, and the
last when it ends. Each write is fenced: when it meets the status of another driver, this one has lost the run. The
whole truth about steps is in the journal; nothing is decided from what is written here.
"""

from __future__ import annotations

import copy
import heapq
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.engine.journal import Entry, EntryState, StepType
from michelangelo.engine.taskruns import task_run_name
from michelangelo.meta import conditions, timestamps

__all__ = ["INTERVAL_SECONDS", "MAX_STEPS", "RESUMABLE", "RunStatus", "StepSummaries"]

RESUMABLE: Final = "Resumable"
"""Condition of a run that stopped but did not end: what it recorded holds, and it can go on."""
MAX_STEPS: Final = 100
INTERVAL_SECONDS: Final = 1.0
_RACES: Final = 10
_MAX_MESSAGE: Final = 2000

_SHOWN: Final[Mapping[EntryState, str]] = {
    EntryState.RUNNING: "Running",
    EntryState.SUCCEEDED: "Succeeded",
    EntryState.CACHED: "Cached",
    EntryState.FAILED: "Failed",
    EntryState.KILLED: "Killed",
    EntryState.LOST: "Lost",
    EntryState.UNKNOWN: "Unknown",
}
_RELEVANCE: Final = {"Unknown": 4, "Failed": 3, "Lost": 3, "Running": 2, "Pending": 2}
_COUNTED: Final = {"Lost": "failed", "Unknown": "failed"}


class StepSummaries:
    """The steps of a run as `status.steps` and `status.stepCounts` show them. Values observed are left out."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._steps: dict[str, Object] = {}
        self._order: dict[str, int] = {}

    def add(self, entry: Entry) -> None:
        if entry.type is StepType.VALUE:
            return
        step = self._steps.setdefault(entry.step, {"name": entry.step, "displayName": entry.task})
        self._order.setdefault(entry.step, len(self._order))
        step.setdefault("startTime", entry.started_at)
        step["attempt"] = entry.attempt
        step["activityId"] = task_run_name(self._run, entry.step, entry.attempt)
        is_over = entry.final or entry.state in (EntryState.RUNNING, EntryState.UNKNOWN)
        pending = str(entry.details.get("pending", "")) if entry.state is EntryState.RUNNING else ""
        step["state"] = _SHOWN[entry.state] if is_over and not pending else "Pending"
        step.pop("endTime", None)
        if entry.final:
            step["endTime"] = entry.ended_at
        step.pop("message", None)
        message = pending if entry.error is None else str(entry.error.get("message", ""))
        if message:
            step["message"] = message[:_MAX_MESSAGE]

    def wait(self, name: str, task: str, reason: str) -> None:
        """The step cannot start yet."""
        step = self._steps.setdefault(name, {"name": name, "displayName": task})
        self._order.setdefault(name, len(self._order))
        step.update(state="Pending", message=reason[:_MAX_MESSAGE])

    def counts(self) -> dict[str, int]:
        found = Counter(_COUNTED.get(step["state"], step["state"].lower()) for step in self._steps.values())
        return {"total": len(self._steps), **found}

    def shown(self) -> list[Object]:
        """At most MAX_STEPS: those that need attention or run before those that are done, the newest of these."""
        chosen = heapq.nlargest(
            MAX_STEPS, self._steps, key=lambda name: (_RELEVANCE.get(self._steps[name]["state"], 1), self._order[name])
        )
        return [dict(self._steps[name]) for name in sorted(chosen, key=self._order.__getitem__)]


class RunStatus:
    """Writes the status of one PipelineRun. An observer of the scheduler."""

    def __init__(
        self, client: Client, run: Object, *, driver: str, on_lost: Callable[[errors.LeaseLostError], None]
    ) -> None:
        """`on_lost` is called, from the thread that writes, when another driver's status is met."""
        self._client = client
        self._run = run
        self._driver = driver
        self._on_lost = on_lost
        self._summaries = StepSummaries(str(run["metadata"]["name"]))
        self._lock = threading.Lock()
        self._is_dirty = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="run status", daemon=True)

    def begin(self, fields: Mapping[str, Any]) -> None:
        """Take the run over: state Running, with `fields`. Raises ApiError."""
        for _ in range(_RACES):
            try:
                self._run = self._client.update({**self._run, "status": self._begun(fields)}, subresource="status")
                self._thread.start()
                return
            except errors.ConflictError:
                # A label, a controller's condition: the lease, not this object, says whose the run is.
                metadata = self._run["metadata"]
                self._run = self._client.get("PipelineRun", metadata["name"], namespace=metadata["namespace"])
        raise errors.ConflictError(f"the status of {self._run['metadata']['name']} is changed by others all the time")

    def _begun(self, fields: Mapping[str, Any]) -> Object:
        status = dict(self._run.get("status") or {})
        for name in ("endTime", "errorMessage", "exceptionType", "code", "result"):
            status.pop(name, None)
        kept = [one for one in status.get("conditions") or () if one["type"] != RESUMABLE]
        status.update(fields, conditions=kept, state="Running", driver=self._driver)
        status.setdefault("startTime", timestamps.now())
        return status

    def restored(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            for entry in entries:
                self._summaries.add(entry)

    def changed(self, entry: Entry) -> None:
        with self._lock:
            self._summaries.add(entry)
        self._is_dirty.set()

    def waiting(self, step: str, task: str, reason: str) -> None:
        with self._lock:
            self._summaries.wait(step, task, reason)
        self._is_dirty.set()

    def pause(self) -> None:
        """Write no more."""
        self._stopped.set()
        self._is_dirty.set()
        if self._thread.ident is not None:
            self._thread.join()

    def finish(self, fields: Mapping[str, Any], *, resumable: str = "") -> Object:
        """The last write. `resumable`: why the run stopped, where it can go on. Raises LeaseLostError, ApiError."""
        self.pause()
        return self._write(fields, resumable)

    def _keep_up(self) -> None:
        while not self._stopped.wait(INTERVAL_SECONDS):
            self._is_dirty.wait()
            if self._stopped.is_set():
                return
            self._is_dirty.clear()
            try:
                self._write({})
            except errors.LeaseLostError as error:
                self._on_lost(error)
                return
            except (errors.ApiError, errors.StorageError):
                # Only a summary: the journal's own writes say whether the run can go on.
                self._is_dirty.set()

    def _write(self, fields: Mapping[str, Any], resumable: str = "") -> Object:
        with self._lock:
            summary = {"steps": self._summaries.shown(), "stepCounts": self._summaries.counts()}
        for _ in range(_RACES):
            wanted = {**self._run, "status": {**copy.deepcopy(self._run.get("status") or {}), **summary, **fields}}
            if resumable:
                message = str(fields.get("errorMessage", ""))
                conditions.set(wanted, RESUMABLE, "True", reason=resumable, message=message)
            try:
                self._run = self._client.update(wanted, subresource="status")
                return self._run
            except errors.NotFoundError as error:
                raise errors.LeaseLostError(f"the run {self._run['metadata']['name']} was deleted") from error
            except errors.ConflictError:
                self._take_current()
        raise errors.ConflictError(f"the status of {self._run['metadata']['name']} is changed by others all the time")

    def _take_current(self) -> None:
        metadata = self._run["metadata"]
        found = self._client.get("PipelineRun", metadata["name"], namespace=metadata["namespace"])
        driver = (found.get("status") or {}).get("driver")
        if driver != self._driver:
            raise errors.LeaseLostError(f"the run {metadata['name']} was taken over by the driver {driver}")
        self._run = found
