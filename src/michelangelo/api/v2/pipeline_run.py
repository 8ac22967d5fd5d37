"""PipelineRun: one execution of a pipeline. What it does step by step is in its TaskRuns; `status.steps` is a
summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from michelangelo import errors
from michelangelo.api.v2 import notification, pipeline
from michelangelo.api.v2.execution_parameters import PipelineExecutionParameters
from michelangelo.api.v2.notification import Notification
from michelangelo.api.v2.pipeline import PipelineSpec
from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.api.v2.user_info import UserInfo
from michelangelo.meta import causes
from michelangelo.meta.document import Bool, Document, Enumeration, FreeForm, Int32, Timestamp
from michelangelo.meta.metadata import Condition, ResourceIdentifier

__all__ = [
    "ExceptionType",
    "ExternalResource",
    "InternalResource",
    "PipelineRun",
    "PipelineRunAction",
    "PipelineRunSpec",
    "PipelineRunState",
    "PipelineRunStatus",
    "PipelineRunStepInfo",
    "PipelineRunStepState",
    "Resume",
    "RetryInfo",
    "SourcePipeline",
    "StepCachedOutputs",
    "StepCounts",
    "StepResource",
]


class PipelineRunAction(Enumeration):
    NO_ACTION = "NoAction"
    KILL = "Kill"
    RESUME = "Resume"


class PipelineRunState(Enumeration):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    KILLED = "Killed"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class PipelineRunStepState(Enumeration):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    KILLED = "Killed"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CACHED = "Cached"
    LOST = "Lost"
    UNKNOWN = "Unknown"


class ExceptionType(Enumeration):
    SYSTEM = "System"
    USER = "User"


class Resume(Document):
    """Go on where an earlier run ended."""

    pipeline_run: ResourceIdentifier
    """The earlier run."""
    resume_from: list[str] | None = None
    """Steps to start from; the results of those before them are taken from the earlier run."""
    resume_up_to: list[str] | None = None
    """Steps to end with."""
    force_resume: Bool | None = None
    """Go on although the code of the workflow has changed."""


class RetryInfo(Document):
    """A single activity of an earlier run that is tried again."""

    activity_id: str | None = None
    """The activity to try again."""
    workflow_id: str | None = None
    """The workflow that the activity belongs to."""
    workflow_run_id: str | None = None
    """The execution of that workflow."""
    reason: str | None = None
    """Why it is tried again."""


class PipelineRunSpec(Document):
    """What is to be run. Nothing but kill and action changes after creation."""

    pipeline: ResourceIdentifier | None = None
    """The pipeline to run, in the run's namespace."""
    revision: ResourceIdentifier | None = None
    """The revision of the pipeline to run; the latest when absent."""
    draft: ResourceIdentifier | None = None
    """The draft to run instead of a pipeline."""
    pipeline_spec: PipelineSpec | None = None
    """A pipeline's spec, for a development run of what is no pipeline yet."""
    actor: UserInfo | None = None
    """Who started the run."""
    description: str | None = None
    """What the run is for."""
    input: PipelineExecutionParameters | None = None
    """The arguments of the workflow."""
    kill: Bool | None = None
    """Set to true to end the run; there is no way back."""
    action: PipelineRunAction | None = None
    """Asks for something to be done with the run: Kill ends it; Resume lets one that stopped for a decision go on,
    and runs again the steps of which nobody knows whether they ran."""
    resume: Resume | None = None
    """Go on where an earlier run ended."""
    retry_info: RetryInfo | None = None
    """A single activity of an earlier run that is tried again."""
    notifications: list[Notification] | None = None
    """Who is told of what happens to the run."""
    workspace_root_dir: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.-]+)*/?$", max_length=4096)] | None = None
    """Folder that the run keeps its data in, instead of the configured one."""
    local_diff: str | None = None
    """Changes to the source that are in no commit, as a patch."""


class ExternalResource(Document):
    """Something outside the platform that a step made or used."""

    name: str | None = None
    """What it is."""
    url: str | None = None
    """Where it is."""


class InternalResource(Document):
    """An object of the platform that a step made or used."""

    entity_type: str | None = None
    """Kind of the object."""
    entity: ResourceIdentifier | None = None
    """The object."""


class StepResource(Document):
    """Something that a step made or used."""

    internal: InternalResource | None = None
    """An object of the platform."""
    external: ExternalResource | None = None
    """Something outside the platform."""


class StepCachedOutputs(Document):
    """What a step left for later runs."""

    intermediate_vars: list[ResourceIdentifier] | None = None
    """CachedOutputs that hold values."""
    checkpoints: list[ResourceIdentifier] | None = None
    """CachedOutputs that hold checkpoints."""
    raw_models: list[ResourceIdentifier] | None = None
    """CachedOutputs that hold models."""


class PipelineRunStepInfo(Document):
    """One step of a run, in short; its attempts are TaskRuns."""

    name: str | None = None
    """Identity of the step in its run."""
    display_name: str | None = None
    """Name of the task, as people see it."""
    state: PipelineRunStepState | None = None
    """How far the step is."""
    attempt: Int32 | None = None
    """Number of the last attempt, from 1."""
    start_time: Timestamp | None = None
    """When the first attempt started."""
    end_time: Timestamp | None = None
    """When the last attempt ended."""
    log_url: str | None = None
    """Where the output of the last attempt is."""
    message: str | None = None
    """Why the step failed."""
    input: Any = None
    """Arguments of the step."""
    output: Any = None
    """Result of the step."""
    activity_id: str | None = None
    """Identity of the step in the engine that runs it."""
    attempt_ids: list[str] | None = None
    """Names of the attempts."""
    attempt_details: list[FreeForm] | None = None
    """The attempts, in short."""
    sub_steps: list[FreeForm] | None = None
    """Steps of a workflow that this step called."""
    step_cached_outputs: StepCachedOutputs | None = None
    """What the step left for later runs."""
    resources: list[StepResource] | None = None
    """Objects and other things that the step made or used."""


class StepCounts(Document):
    """How many steps there are, by state."""

    total: Int32 | None = None
    """All steps that have started."""
    pending: Int32 | None = None
    """Steps that wait for their start."""
    running: Int32 | None = None
    """Steps that run now."""
    succeeded: Int32 | None = None
    """Steps that ran and succeeded."""
    cached: Int32 | None = None
    """Steps that took the result of an earlier success."""
    failed: Int32 | None = None
    """Steps that failed."""
    killed: Int32 | None = None
    """Steps that were ended."""


class SourcePipeline(Document):
    """What was run, as it was then."""

    pipeline: FreeForm | None = None
    """The pipeline."""
    draft_pipeline: FreeForm | None = None
    """The draft."""


class PipelineRunStatus(Document):
    """What is so; written by the pipeline run controller and by the driver of the run."""

    state: PipelineRunState | None = None
    """How far the run is."""
    start_time: Timestamp | None = None
    """When the workflow started."""
    end_time: Timestamp | None = None
    """When the run ended."""
    error_message: str | None = None
    """Why the run failed, and what to do."""
    exception_type: ExceptionType | None = None
    """Whether the user's code or the system is the cause of the failure."""
    code: Int32 | None = None
    """Exit code of the run."""
    log_url: str | None = None
    """Where the output of the workflow is."""
    conditions: list[Condition] | None = None
    """What holds of the run, one entry per type."""
    steps: Annotated[list[PipelineRunStepInfo], Field(max_length=1000)] | None = None
    """A summary of the newest and most relevant steps; the whole is read from the run's TaskRuns."""
    step_counts: StepCounts | None = None
    """How many steps there are, by state."""
    result: Any = None
    """Result of the workflow, encoded."""
    source_pipeline: SourcePipeline | None = None
    """What was run, as it was then."""
    source_digest: str | None = None
    """Digest of the source files that were run."""
    driver: str | None = None
    """Identity of the process that drives the run."""
    workflow_id: str | None = None
    """Identity of the workflow in the engine that runs it."""
    workflow_run_id: str | None = None
    """Identity of the workflow's execution in the engine that runs it."""
    details: Any = None
    """Further facts, for people."""


class PipelineRun(Resource):
    """One execution of a pipeline."""

    spec: PipelineRunSpec
    """What is to be run. Nothing but kill and action changes after creation."""
    status: PipelineRunStatus | None = None
    """What is so; written by the pipeline run controller and by the driver of the run."""

    # The name is the value of a label of the run's TaskRuns and Signals.
    label_name = True
    frozen = ("spec",)
    control = ("spec.kill", "spec.action")
    one_way = ("spec.kill",)
    example: ClassVar[Mapping[str, Any]] = {"spec": {"pipeline": {"name": "my-pipeline"}, "input": {"kwArgs": {}}}}
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Pipeline", ".spec.pipeline.name", description="The pipeline that is run"),
        Column("State", ".status.state", description="How far the run is"),
        Column("Steps", ".status.stepCounts.total", "integer", "Steps that have started"),
        Column("Started", ".status.startTime", "date", "Time since the workflow started"),
        Column("Ended", ".status.endTime", "date", "Time since the run ended"),
        Column("Revision", ".spec.revision.name", description="The revision that is run", priority=1),
        Column("Actor", ".spec.actor.name", description="Who started the run", priority=1),
        Column("Message", ".status.errorMessage", description="Why the run failed", priority=1),
        AGE,
    )

    def cross_validate(self) -> list[errors.FieldError]:
        spec = self.spec
        found: list[errors.FieldError] = []
        if spec.pipeline is None and spec.pipeline_spec is None and spec.draft is None:
            detail = "name the pipeline to run, or give spec.pipelineSpec for a development run"
            found.append(causes.required("spec.pipeline", detail))
        references = {
            "spec.pipeline": spec.pipeline,
            "spec.revision": spec.revision,
            "spec.draft": spec.draft,
            "spec.resume.pipelineRun": spec.resume and spec.resume.pipeline_run,
        }
        found += (
            causes.required(f"{path}.name")
            for path, reference in references.items()
            if reference and not reference.name
        )
        if spec.pipeline_spec is not None:
            found += pipeline.check_spec("spec.pipelineSpec", spec.pipeline_spec)
        return found + notification.check("spec.notifications", spec.notifications)
