"""Pipeline: a workflow under a name. Applying one makes a Revision; running one makes a PipelineRun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from michelangelo import errors
from michelangelo.api.v2 import notification, trigger
from michelangelo.api.v2.commit_info import CommitInfo
from michelangelo.api.v2.execution_parameters import PipelineExecutionParameters
from michelangelo.api.v2.notification import Notification
from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.api.v2.trigger import Trigger
from michelangelo.api.v2.user_info import UserInfo
from michelangelo.meta import causes, fieldpath
from michelangelo.meta.document import Document, Enumeration, FreeForm
from michelangelo.meta.metadata import Condition, ResourceIdentifier

__all__ = [
    "LockedEnvironment",
    "Pipeline",
    "PipelineManifest",
    "PipelineManifestType",
    "PipelineSpec",
    "PipelineState",
    "PipelineStatus",
    "PipelineType",
    "TaskSpec",
    "check_spec",
]


class PipelineType(Enumeration):
    TRAIN = "Train"
    EVAL = "Eval"
    PERF_EVAL = "PerfEval"
    EXPERIMENT = "Experiment"
    RETRAIN = "Retrain"
    PREDICTION = "Prediction"
    PERFORMANCE_MONITORING = "PerformanceMonitoring"
    BASIS_FEATURE = "BasisFeature"
    DATA_PREP = "DataPrep"
    ONLINE_OFFLINE_FEATURE_CONSISTENCY = "OnlineOfflineFeatureConsistency"
    FEATURE_GROUP_COMPUTE = "FeatureGroupCompute"
    ONLINE_OFFLINE_FEATURE_CONSISTENCY_ORCHESTRATION = "OnlineOfflineFeatureConsistencyOrchestration"
    POST_PROCESSING = "PostProcessing"
    OPTIMIZATION = "Optimization"
    SCORER = "Scorer"


class PipelineManifestType(Enumeration):
    YAML = "Yaml"
    UNIFLOW = "Uniflow"


class PipelineState(Enumeration):
    CREATED = "Created"
    BUILDING = "Building"
    READY = "Ready"
    ERROR = "Error"


class TaskSpec(Document):
    """A task of the manifest."""

    name: str | None = None
    """Name of the task."""
    image_manifest_path: str | None = None
    """Path of the manifest of the task's container image."""
    image_target_hash: str | None = None
    """Hash of what the task's container image is built from."""


class LockedEnvironment(Document):
    """Requirements of tasks, and the packages that were chosen for them."""

    requirements: list[str] | None = None
    """Lines as the tasks have them."""
    packages: list[str] | None = None
    """Every package with its version, such as tabulate==0.9.0."""
    lock: Annotated[str, Field(max_length=256)] | None = None
    """Digest of the blob that holds the lock: the packages with the hashes of their files."""


class PipelineManifest(Document):
    """Where the workflow is and what it takes."""

    type: PipelineManifestType = PipelineManifestType.UNIFLOW
    """Uniflow for a workflow in Python, Yaml for one in YAML."""
    file_path: str | None = None
    """The Python file, or the module with an optional `:function`, that defines the workflow."""
    content: FreeForm | None = None
    """The workflow itself, where it is written in YAML; kept literally."""
    params_map: dict[str, PipelineExecutionParameters] | None = None
    """Parameter sets by name."""
    trigger_map: dict[str, Trigger] | None = None
    """Triggers by name: when the pipeline runs by itself."""
    uniflow_tar: str | None = None
    """The packed source: digest or URL of a blob."""
    uniflow_function: str | None = None
    """Name of the workflow function."""
    overridable_fields_url: str | None = None
    """Where the list of the fields is that a run may override."""
    task_specs: list[TaskSpec] | None = None
    """Tasks of the workflow, as far as they are known beforehand."""
    source_digest: Annotated[str, Field(max_length=256)] | None = None
    """Digest of the source files, such as sha256:… ."""
    environments: dict[str, LockedEnvironment] | None = None
    """Locked requirements of the tasks, by the digest of the requirements; every run uses these versions."""
    parameters: FreeForm | None = None
    """JSON Schema of the workflow's parameters, made from the function's signature."""
    graph: FreeForm | None = None
    """The workflow's graph, read from its code: nodes with their places in the source, and edges."""


class PipelineSpec(Document):
    """What the pipeline is."""

    type: PipelineType | None = None
    """What the pipeline is for."""
    description: str | None = None
    """What the pipeline does."""
    manifest: PipelineManifest | None = None
    """Where the workflow is and what it takes."""
    owner: UserInfo | None = None
    """Who last edited the pipeline."""
    commit: CommitInfo | None = None
    """Commit that the pipeline was taken from."""
    notifications: list[Notification] | None = None
    """Who is told of what happens to the pipeline."""


class PipelineStatus(Document):
    """What is so; written by the pipeline controller."""

    state: PipelineState | None = None
    """Whether the pipeline can be run."""
    container_image: str | None = None
    """Container image that the tasks run in."""
    build_id: str | None = None
    """Identity of the build of the container image."""
    registered_workflow: FreeForm | None = None
    """What a workflow engine knows of the pipeline."""
    latest_revision: ResourceIdentifier | None = None
    """Revision of the spec as it is now."""
    error_message: str | None = None
    """Why the state is Error, and what to do."""
    conditions: list[Condition] | None = None
    """What holds of the pipeline, one entry per type."""


class Pipeline(Resource):
    """A workflow under a name, with its source, its parameters and its triggers."""

    spec: PipelineSpec
    """What the pipeline is."""
    status: PipelineStatus | None = None
    """What is so; written by the pipeline controller."""

    # The name is the value of a label of the pipeline's runs.
    label_name = True
    example: ClassVar[Mapping[str, Any]] = {
        "spec": {"type": "Train", "manifest": {"filePath": "flow.py", "uniflowFunction": "train"}}
    }
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Type", ".spec.type", description="What the pipeline is for"),
        Column("State", ".status.state", description="Whether the pipeline can be run"),
        Column("Revision", ".status.latestRevision.name", description="Revision of the spec as it is now"),
        Column("Owner", ".spec.owner.name", description="Who last edited the pipeline", priority=1),
        Column("Function", ".spec.manifest.uniflowFunction", description="The workflow function", priority=1),
        Column("Message", ".status.errorMessage", description="Why the state is Error", priority=1),
        AGE,
    )

    def cross_validate(self) -> list[errors.FieldError]:
        if self.spec.manifest is None:
            return [causes.required("spec.manifest", "it says where the workflow is")]
        return check_spec("spec", self.spec)


def check_spec(path: str, spec: PipelineSpec) -> list[errors.FieldError]:
    """The cross-field rules of a pipeline spec that lies at `path`."""
    found = notification.check(f"{path}.notifications", spec.notifications)
    triggers = (spec.manifest.trigger_map if spec.manifest else None) or {}
    for name, one in triggers.items():
        found += trigger.check(fieldpath.text((*fieldpath.parse(path), "manifest", "triggerMap", name)), one)
    return found
