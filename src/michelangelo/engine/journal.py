"""The Journal protocol: what a run has done, as its driver writes and replays it.

An entry is one attempt of one step. Its start is written before anything happens and its end before the workflow
sees it, each as one write. The journal of a real run is its TaskRun objects (engine/taskruns.py); the memory twin is
engine/memory.py. Both pass the conformance suite in tests/engine.

The journal decides nothing: identity, fingerprints, budgets and order are the driver's (engine/driver.py,
engine/replay.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

__all__ = ["Entry", "EntryState", "Journal", "StepType"]


class StepType(StrEnum):
    TASK = "Task"
    TIMER = "Timer"
    """`uniflow.sleep`: `wake_at` is recorded at the start."""
    SIGNAL = "Signal"
    """`uniflow.wait_for_signal`."""
    RUN = "Run"
    """`uniflow.run_pipeline`: a run of another pipeline, whose name is recorded at the start."""
    VALUE = "Value"
    """An observation of the outside that replay must repeat: `now`, `future.done()`, a wait that timed out."""


class EntryState(StrEnum):
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    CACHED = "Cached"
    """Succeeded without running: the output of an earlier success with the same key."""
    FAILED = "Failed"
    KILLED = "Killed"
    LOST = "Lost"
    """The worker or the driver went away before an end was recorded; counted by the loss budget, not by the retries."""
    UNKNOWN = "Unknown"
    """Lost, and the step is not idempotent: the run stops for a decision."""

    @property
    def is_final(self) -> bool:
        return self is not EntryState.RUNNING


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt of one step."""

    step: str
    """Identity of the step in its run: scope path, call site, n-th call there."""
    attempt: int
    """1, 2, …: retries and relaunches after a loss alike."""
    type: StepType
    task: str
    """What is shown: the task's name, or `sleep`, `signal`, `now` …"""
    fingerprint: str
    """Digest of the task's code and of its arguments."""
    state: EntryState = EntryState.RUNNING
    inputs: Any = None
    """Encoded arguments (`uniflow.codecs`)."""
    output: Any = None
    error: Mapping[str, Any] | None = None
    started_at: str = ""
    """RFC 3339, UTC, microseconds."""
    ended_at: str = ""
    completion: int = 0
    """1, 2, … in the order in which ends reached the workflow; 0 while running. Replay repeats this order."""
    final: bool = False
    """Whether this end is the step's: no retry follows."""
    node: str = ""
    """The node of the workflow's graph that this step is an instance of (`uniflow.graph`)."""
    driver: str = ""
    """Identity of the driver that wrote the entry (the fence)."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """For people and later decisions: executor, resources, exitCode, maxRssBytes, wakeAt, signal, cacheKey, log …"""


class Journal(Protocol):
    """Written by the run's driver only. Every method raises LeaseLostError when another driver has taken over."""

    def load(self) -> Sequence[Entry]:
        """All entries of the run. Entries that an earlier driver left RUNNING are fenced first: that driver's
        later `end` fails."""
        ...

    def start(self, entry: Entry) -> None:
        """Record a start. (step, attempt) is unique: a second start is LeaseLostError."""
        ...

    def end(self, entry: Entry) -> None:
        """Record the end of a started entry (state, output, error, ended_at, completion, final, details).

        An entry that never was started (a cache hit, an observed value) is recorded whole, as one write. One that is
        RUNNING still is written anew, with its details.
        """
        ...
