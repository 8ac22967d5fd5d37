"""The Executor protocol: where an attempt of a task runs, and nothing about why.

An executor takes attempts, reports their ends, and can end them early. It keeps no journal, retries nothing and
knows no kind: the driver decides (engine/driver.py). Capabilities that only some executors have are protocols of
one method each, asked for with `isinstance`.

Every implementation passes the conformance suite in tests/executors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "Attempt",
    "AttemptState",
    "CallTarget",
    "Executor",
    "Orphans",
    "Outcome",
    "Pending",
    "Resources",
    "SecretValue",
]


class AttemptState(StrEnum):
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    """The user's code raised, or its result cannot be encoded; `error` says what."""
    TIMED_OUT = "TimedOut"
    KILLED = "Killed"
    OUT_OF_MEMORY = "OutOfMemory"
    LOST = "Lost"
    """The worker ended without a report: the code may have run, wholly, partly or not at all."""


@dataclass(frozen=True, slots=True)
class CallTarget:
    """The function to call: `qualname` in the source file `path` (imported as `module`)."""

    path: str
    module: str
    qualname: str


@dataclass(frozen=True, slots=True)
class Resources:
    """What an attempt may use. `cpu` in cores; `memory_bytes` limits its process tree's resident size (0: none)."""

    cpu: float = 1.0
    memory_bytes: int = 0
    gpu: float = 0.0


@dataclass(frozen=True, slots=True)
class SecretValue:
    """A secret as a task gets it: the value of the environment variable `variable`, or, `as_file`, the content of a
    file that only the task's user can read and whose path the variable holds. Never stored; redacted in the log."""

    variable: str
    value: str = field(repr=False)
    as_file: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one step. `id` (the TaskRun's name) is unique in the run."""

    id: str
    target: CallTarget
    arguments: Mapping[str, Any]
    """{"args": [...], "kwargs": {...}}, encoded by `uniflow.codecs`: inline values and blob references, plain JSON."""
    resources: Resources = Resources()
    timeout_seconds: float = 0.0
    """0: none."""
    environment: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    """File that gets stdout and stderr, bounded; empty: discarded."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """What the task may know of itself: fields of `uniflow.task_context.TaskContext` by name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the task asks of this executor beyond `resources` (`uniflow.config.TaskConfig.settings`), plain JSON."""
    requirements: Sequence[str] = ()
    """Lines of a locked requirements file: the function runs in an environment that has these. Empty: in ours."""
    working_directory: str = ""
    """Where the function runs; empty: where the run was started."""
    secrets: Sequence[SecretValue] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `output` is the encoded result; `error` is the JSON form of the failure
    ({type, types, message, traceback, file, line, function, source}), see `worker.failure`."""

    id: str
    state: AttemptState
    output: Any = None
    error: Mapping[str, Any] | None = None
    exit_code: int | None = None
    max_rss_bytes: int = 0


class Executor(Protocol):
    """Thread use: `submit`, `cancel` and `close` from any thread; `poll` from one thread at a time."""

    @property
    def name(self) -> str:
        """The name that a task asks for: inprocess, process, ray, kubernetes, spark."""
        ...

    @property
    def capacity(self) -> int:
        """How many attempts may be submitted and unfinished at a time; the driver queues the rest."""
        ...

    def submit(self, attempt: Attempt) -> None:
        """Start an attempt. Returns before it ends. Raises ExecutorError when it cannot be taken."""
        ...

    def poll(self, timeout_seconds: float) -> Sequence[Outcome]:
        """Attempts that ended since the last call, each reported once; waits up to `timeout_seconds` for the first."""
        ...

    def cancel(self, attempt_id: str, *, grace_seconds: float = 5.0) -> None:
        """End an attempt with its whole process group: asked to first, forced after `grace_seconds`.

        Its outcome comes through `poll`, KILLED unless it ended first. Unknown ids are ignored.
        """
        ...

    def wake(self) -> None:
        """Make a `poll` that waits return at once, from any thread."""
        ...

    def close(self) -> None:
        """End everything that still runs, and leave no process, thread or temporary file behind."""
        ...


@runtime_checkable
class Pending(Protocol):
    """Capability: attempts may have to wait before they start, for room in a cluster or for their environment."""

    def pending(self) -> Mapping[str, str]:
        """The attempts that were submitted and have not started, each with the reason, for people. A `poll` that waits
        returns, empty if need be, when this changes."""
        ...


@runtime_checkable
class Orphans(Protocol):
    """Capability: find what an earlier driver of the same run left running, and end it."""

    def end_orphans(self) -> int:
        """End them all, before anything is launched again; returns how many processes were ended."""
        ...
