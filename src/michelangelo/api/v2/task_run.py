"""TaskRun: one attempt of one step of a run; all of a run's TaskRuns together are its journal.

Only the driver of the run writes them: whole, with their status, once at the start and once at the end. The fields are
those of `engine.journal.Entry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.meta.document import Bool, Document, Enumeration, FreeForm, Int32, Int64, Timestamp

__all__ = ["TaskRun", "TaskRunSpec", "TaskRunState", "TaskRunStatus", "TaskRunType"]


class TaskRunType(Enumeration):
    TASK = "Task"
    TIMER = "Timer"
    SIGNAL = "Signal"
    RUN = "Run"
    VALUE = "Value"


class TaskRunState(Enumeration):
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    CACHED = "Cached"
    FAILED = "Failed"
    KILLED = "Killed"
    LOST = "Lost"
    UNKNOWN = "Unknown"


class TaskRunSpec(Document):
    """Which step this is an attempt of, and with what. Never changed."""

    pipeline_run: Annotated[str, Field(min_length=1)]
    """Name of the run, in the same namespace."""
    step: Annotated[str, Field(min_length=1)]
    """Identity of the step in its run: scope, call site, n-th call there."""
    attempt: Annotated[Int32, Field(ge=1)]
    """Number of the attempt, from 1; retries and relaunches after a loss alike."""
    type: TaskRunType = TaskRunType.TASK
    """What the step is: a task, a timer, a wait for a signal, a run of another pipeline, or an observed value."""
    task: str | None = None
    """Name of the task, as people see it."""
    fingerprint: str | None = None
    """Digest of the task's code and of its arguments."""
    node: str | None = None
    """The node of the workflow's graph that the step is an instance of."""
    inputs: Any = None
    """The arguments, encoded."""
    driver: str | None = None
    """Identity of the driver that started the attempt."""


class TaskRunStatus(Document):
    """How the attempt went."""

    state: TaskRunState | None = None
    """How far the attempt is. Lost: the process went away before an end was recorded. Unknown: lost, and it may not
    be run again without a decision."""
    start_time: Timestamp | None = None
    """When the attempt started."""
    end_time: Timestamp | None = None
    """When the attempt ended."""
    output: Any = None
    """The result, encoded."""
    error: FreeForm | None = None
    """Why the attempt failed: type, message, and where in the user's code."""
    completion: Annotated[Int64, Field(ge=0)] | None = None
    """Position in the order in which ends reached the workflow, from 1; 0 while running."""
    final: Bool | None = None
    """Whether this end is the step's: no further attempt follows."""
    details: FreeForm | None = None
    """Facts for people: executor, resources, exit code, memory, log and the like."""


class TaskRun(Resource):
    """One attempt of one step of a run."""

    spec: TaskRunSpec
    """Which step this is an attempt of, and with what. Never changed."""
    status: TaskRunStatus | None = None
    """How the attempt went."""

    frozen = ("spec",)
    example: ClassVar[Mapping[str, Any]] = {"spec": {"pipelineRun": "my-run", "step": "main/train#0", "attempt": 1}}
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Run", ".spec.pipelineRun", description="The run"),
        Column("Task", ".spec.task", description="Name of the task"),
        Column("Attempt", ".spec.attempt", "integer", "Number of the attempt"),
        Column("State", ".status.state", description="How far the attempt is"),
        Column("Started", ".status.startTime", "date", "Time since the attempt started"),
        Column("Ended", ".status.endTime", "date", "Time since the attempt ended"),
        Column("Step", ".spec.step", description="Identity of the step in its run", priority=1),
        Column("Message", ".status.error.message", description="Why the attempt failed", priority=1),
        AGE,
    )
