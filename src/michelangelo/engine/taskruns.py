"""The journal of a real run: one TaskRun object per attempt, through a Client, by labels and single-object writes only.

An object is created with its start and updated once with its end. The fences are the API's own: a create that finds the
name taken, or an update that finds another resourceVersion than the one held, means that another driver has taken over.
A request may have been carried out although its answer was lost: what carries this driver's identity, which is unique
to it, was written by it. It decides nothing about steps.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.engine.journal import Entry, EntryState, StepType
from michelangelo.meta import labels

__all__ = ["DECISION", "TaskRunJournal", "label_value", "read", "task_run_name"]

DECISION = "michelangelo/decision"
"""Annotation on a TaskRun whose outcome is unknown: `retry`, `done` or `fail`, set by a person before resuming."""

T = TypeVar("T")


def task_run_name(run: str, step: str, attempt: int) -> str:
    """`<run>-<12 hex of the step's digest>-<attempt>`."""
    return f"{run}-{hashlib.sha256(step.encode()).hexdigest()[:12]}-{attempt}"


def label_value(text: str) -> str:
    """`text` as a label value: other characters become `_`, at most 63."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in text)[:63]
    return plain.strip("-_.")


def read(client: Client, namespace: str, run: str) -> list[Entry]:
    """The journal of a run that another driver may be writing, as it is now. Nothing is taken over."""
    listed = client.list("TaskRun", namespace=namespace, label_selector=f"{labels.PIPELINE_RUN}={run}")
    return [_entry(obj) for obj in listed.items]


class TaskRunJournal:
    """`engine.journal.Journal` over the TaskRuns of the PipelineRun `run` (an object that exists)."""

    def __init__(
        self,
        client: Client,
        run: Object,
        *,
        driver: str,
        patience_seconds: float = 30.0,
        is_owner: Callable[[], bool] = lambda: True,
    ) -> None:
        """`patience_seconds`: how long a write is tried again while no server answers, unless `is_owner`, whether this
        driver may still write, says no before."""
        self._client = client
        self._driver = driver
        self._patience_seconds = patience_seconds
        self._is_owner = is_owner
        self._run = str(run["metadata"]["name"])
        self._namespace = str(run["metadata"]["namespace"])
        self._owner = {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "name": self._run,
            "uid": run["metadata"]["uid"],
            "controller": True,
        }
        self._written: dict[tuple[str, int], Object] = {}

    def load(self) -> Sequence[Entry]:
        listed = self._patiently(
            lambda: self._client.list(
                "TaskRun", namespace=self._namespace, label_selector=f"{labels.PIPELINE_RUN}={self._run}"
            )
        )
        objects = [self._fence(obj) if obj["status"]["state"] == EntryState.RUNNING else obj for obj in listed.items]
        for obj in objects:
            self._written[(obj["spec"]["step"], obj["spec"]["attempt"])] = obj
        return sorted(map(_entry, objects), key=lambda entry: (entry.step, entry.attempt))

    def start(self, entry: Entry) -> None:
        self._create(entry)

    def end(self, entry: Entry) -> None:
        held = self._written.get((entry.step, entry.attempt))
        if held is None:
            self._create(entry)
            return
        wanted = {**held, "status": _status(entry)}
        self._written[(entry.step, entry.attempt)] = self._update(wanted)

    def _create(self, entry: Entry) -> None:
        wanted = self._object(entry)
        name = wanted["metadata"]["name"]
        try:
            written = self._patiently(lambda: self._client.create(wanted))
        except errors.AlreadyExistsError as error:
            written = self._client.get("TaskRun", name, namespace=self._namespace)
            if _driver(written) != self._driver:
                raise errors.LeaseLostError(
                    f"attempt {entry.attempt} of step {entry.step} was recorded by the driver "
                    f"{written['spec'].get('driver')}; this driver ({self._driver}) stops"
                ) from error
        self._written[(entry.step, entry.attempt)] = written

    def _update(self, wanted: Object) -> Object:
        name = wanted["metadata"]["name"]
        try:
            return self._patiently(lambda: self._client.update(wanted))
        except errors.NotFoundError as error:
            raise errors.LeaseLostError(f"TaskRun {name} was deleted while its run was going on") from error
        except errors.ConflictError as error:
            found = self._client.get("TaskRun", name, namespace=self._namespace)
            if _driver(found) != self._driver:
                raise errors.LeaseLostError(
                    f"TaskRun {name} was taken over by the driver {_driver(found)}; this driver ({self._driver}) stops"
                ) from error
            if found["status"]["state"] != EntryState.RUNNING:
                return found
            # Someone put a label or an annotation on it meanwhile.
            return self._update({**found, "status": wanted["status"]})

    def _fence(self, obj: Object) -> Object:
        """Take over a running entry: the version that the earlier driver holds is no longer the current one."""
        details = {**(obj["status"].get("details") or {}), "driver": self._driver}
        name = obj["metadata"]["name"]
        try:
            return self._patiently(
                lambda: self._client.update({**obj, "status": {**obj["status"], "details": details}})
            )
        except errors.ConflictError:
            found = self._client.get("TaskRun", name, namespace=self._namespace)
            return self._fence(found) if found["status"]["state"] == EntryState.RUNNING else found

    def _patiently(self, call: Callable[[], T]) -> T:
        """`call`, again and again while no server answers."""
        deadline = time.monotonic() + self._patience_seconds
        delay = 0.05
        while True:
            try:
                return call()
            except errors.UnavailableError as error:
                if not self._is_owner():
                    raise errors.LeaseLostError(
                        f"no server answered for as long as the lease of run {self._run} lasts; another driver may "
                        "have taken over"
                    ) from error
                if time.monotonic() + delay > deadline:
                    raise
                time.sleep(delay)
                delay = min(delay * 2, 1.0)

    def _object(self, entry: Entry) -> Object:
        found = {labels.PIPELINE_RUN: self._run, labels.TASK: label_value(entry.task)}
        if entry.type is StepType.SIGNAL:
            found[labels.SIGNAL] = label_value(entry.task)
        return {
            "apiVersion": "michelangelo.api/v2",
            "kind": "TaskRun",
            "metadata": {
                "name": task_run_name(self._run, entry.step, entry.attempt),
                "namespace": self._namespace,
                "labels": found,
                "ownerReferences": [self._owner],
            },
            "spec": {
                "pipelineRun": self._run,
                "step": entry.step,
                "attempt": entry.attempt,
                "type": entry.type.value,
                "task": entry.task,
                "fingerprint": entry.fingerprint,
                "inputs": entry.inputs,
                "driver": entry.driver,
                **({"node": entry.node} if entry.node else {}),
            },
            "status": _status(entry),
        }


def _status(entry: Entry) -> Object:
    status: Object = {
        "state": entry.state.value,
        "startTime": entry.started_at,
        "completion": entry.completion,
        "final": entry.final,
        "details": {**entry.details, "driver": entry.driver},
    }
    if entry.ended_at:
        status["endTime"] = entry.ended_at
    if entry.output is not None:
        status["output"] = entry.output
    if entry.error is not None:
        status["error"] = dict(entry.error)
    return status


def _entry(obj: Object) -> Entry:
    spec, status = obj["spec"], obj["status"]
    details = dict(status.get("details") or {})
    details.pop("driver", None)
    decision = (obj["metadata"].get("annotations") or {}).get(DECISION)
    if decision:
        details["decision"] = decision
    return Entry(
        step=spec["step"],
        attempt=spec["attempt"],
        type=StepType(spec["type"]),
        task=spec["task"],
        fingerprint=spec["fingerprint"],
        state=EntryState(status["state"]),
        inputs=spec.get("inputs"),
        node=spec.get("node") or "",
        output=status.get("output"),
        error=status.get("error"),
        started_at=status.get("startTime") or "",
        ended_at=status.get("endTime") or "",
        completion=status.get("completion") or 0,
        final=bool(status.get("final")),
        driver=_driver(obj),
        details=details,
    )


def _driver(obj: Object) -> str:
    return str((obj["status"].get("details") or {}).get("driver") or obj["spec"].get("driver") or "")
