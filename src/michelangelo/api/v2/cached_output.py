"""CachedOutput: the result of a step, kept so that the same step need not run again. Never changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from michelangelo import errors
from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.meta import causes
from michelangelo.meta.document import Document, Enumeration, FreeForm, Int32, Int64
from michelangelo.meta.metadata import ResourceIdentifier

__all__ = [
    "ArgumentPart",
    "CacheKey",
    "CachedOutput",
    "CachedOutputSpec",
    "CachedOutputStatus",
    "CachedOutputType",
    "CheckpointSpec",
    "CodePart",
    "RawModelSpec",
    "StorageType",
    "VariableSpec",
    "VariableType",
]


class CachedOutputType(Enumeration):
    VARIABLE = "Variable"
    TRANSFORM_CKPT = "TransformCheckpoint"
    TRAINING_CKPT = "TrainingCheckpoint"
    RAW_MODEL = "RawModel"


class StorageType(Enumeration):
    S3 = "S3"
    BLOB = "Blob"


class VariableType(Enumeration):
    CUSTOM = "Custom"
    PROTO = "Proto"
    SPARK_DATA_FRAME = "SparkDataFrame"
    SPARK_ML_PIPELINE = "SparkMlPipeline"
    SPARK_ML_PIPELINE_MODEL = "SparkMlPipelineModel"
    PARAMS = "Params"


class VariableSpec(Document):
    """A value."""

    id: str | None = None
    """Name of the value."""
    type: VariableType | None = None
    """What the value is."""
    metadata: FreeForm | None = None
    """Further facts."""


class CheckpointSpec(Document):
    """A checkpoint."""

    id: str | None = None
    """Name of the checkpoint."""
    metadata: FreeForm | None = None
    """Further facts."""


class RawModelSpec(Document):
    """A model as it came from training."""

    id: str | None = None
    """Name of the model."""


class CodePart(Document):
    """A function, class or constant that the task reaches in the user's own modules."""

    digest: str | None = None
    """Some hex digits of the digest of this part alone."""
    file: str | None = None
    """File, as in the packed source of the run that made it."""
    line: Int32 | None = None
    """Line at which a function begins."""
    value: str | None = None
    """The value of a constant, shortened."""


class ArgumentPart(Document):
    """An argument of the task."""

    digest: str | None = None
    """Some hex digits of the digest of its content."""
    value: str | None = None
    """The value, shortened; of data its type, shape, size and digest."""


class CacheKey(Document):
    """What the result depends on; when nothing of it changed, the step need not run."""

    task: str | None = None
    """Name of the task."""
    code: str | None = None
    """Digest of the task's code, and of what it reaches in the user's own modules."""
    arguments: str | None = None
    """Digest of the arguments."""
    version: str | None = None
    """Version that the task's author gave."""
    requirements: list[str] | None = None
    """The task's requirements, as its author wrote them."""
    python: str | None = None
    """Version of Python whose compiled code the digest is of."""
    code_parts: dict[str, CodePart] | None = None
    """What the digest of the code covers, by module:qualname. For people: the digest decides."""
    code_parts_omitted: Int32 | None = None
    """How many parts are covered and not named."""
    argument_parts: dict[str, ArgumentPart] | None = None
    """What the digest of the arguments covers, by parameter. For people: the digest decides."""


class CachedOutputSpec(Document):
    """The result, and what it depends on."""

    type: CachedOutputType | None = None
    """What is kept."""
    storage_type: StorageType | None = None
    """How it is stored."""
    storage_uri: str | None = None
    """Where it is stored, when it is not in output."""
    zone: str | None = None
    """Where in the world it is stored."""
    ttl_in_days: Annotated[Int32, Field(ge=0)] | None = None
    """Days that it is valid from its creation; 0 or absent for ever."""
    ttl_seconds: Annotated[Int64, Field(ge=0)] | None = None
    """Seconds that it is valid from its creation, in place of ttlInDays."""
    source_pipeline_run: ResourceIdentifier | None = None
    """The run that made it."""
    source_pipeline_run_step: str | None = None
    """The step of that run that made it."""
    variable_spec: VariableSpec | None = None
    """What is kept, when it is a value."""
    checkpoint_spec: CheckpointSpec | None = None
    """What is kept, when it is a checkpoint."""
    raw_model_spec: RawModelSpec | None = None
    """What is kept, when it is a model."""
    key: CacheKey | None = None
    """What the result depends on."""
    output: Any = None
    """The result, encoded."""


class CachedOutputStatus(Document):
    """Empty: what is cached is there or not."""


class CachedOutput(Resource):
    """The result of a step, kept so that the same step need not run again."""

    spec: CachedOutputSpec
    """The result, and what it depends on."""
    status: CachedOutputStatus | None = None
    """Empty: what is cached is there or not."""

    frozen = ("spec",)
    example: ClassVar[Mapping[str, Any]] = {"spec": {"type": "Variable", "output": None}}
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Task", ".spec.key.task", description="Name of the task"),
        Column("Run", ".spec.sourcePipelineRun.name", description="The run that made it"),
        Column("Step", ".spec.sourcePipelineRunStep", description="The step that made it"),
        Column("Version", ".spec.key.version", description="Version that the task's author gave", priority=1),
        AGE,
    )

    def cross_validate(self) -> list[errors.FieldError]:
        specs = {
            "variableSpec": self.spec.variable_spec,
            "checkpointSpec": self.spec.checkpoint_spec,
            "rawModelSpec": self.spec.raw_model_spec,
        }
        given = [name for name, spec in specs.items() if spec is not None]
        return [causes.forbidden(f"spec.{name}", f"only one of {', '.join(specs)} may be given") for name in given[1:]]
