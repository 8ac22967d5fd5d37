"""The one hierarchy of errors, so that a caller can catch by meaning and never by library.

    MichelangeloError
    ├── ApiError                 an API verb was refused; carries what a Kubernetes Status carries
    │   ├── BadRequestError      400 BadRequest
    │   ├── UnauthorizedError    401 Unauthorized
    │   ├── ForbiddenError       403 Forbidden
    │   ├── NotFoundError        404 NotFound
    │   ├── MethodNotAllowedError 405 MethodNotAllowed
    │   ├── AlreadyExistsError   409 AlreadyExists
    │   ├── ConflictError        409 Conflict
    │   ├── ExpiredError         410 Expired             a revision or continue token that was compacted away
    │   ├── RequestTooLargeError 413 RequestEntityTooLarge
    │   ├── UnsupportedMediaTypeError 415 UnsupportedMediaType
    │   ├── InvalidError         422 Invalid             all field errors at once, with their paths
    │   ├── TooManyRequestsError 429 TooManyRequests
    │   ├── InternalError        500 InternalError
    │   └── UnavailableError     503 ServiceUnavailable  no server answers, or it is shutting down
    ├── StorageError             the database or the blob store cannot do what was asked
    │   ├── CorruptDatabaseError
    │   ├── NewerSchemaError     the file was written by a newer version
    │   ├── IntegrityError       a blob's bytes do not match its digest
    │   └── StoreUnavailableError  the blob store cannot be reached; later it may
    ├── SettingsError            a setting, an argument of the command line, or a configuration file
    ├── WorkflowError            a run cannot go on
    │   ├── ArgumentsError       arguments do not fit the workflow's or the task's signature
    │   ├── CodecError           a value that no codec can carry
    │   ├── SourceError          a workflow file that does not import, or has no such workflow
    │   ├── RequirementsError    requirements of a task that cannot be resolved or installed
    │   ├── NonDeterminismError  replay met another step than the one recorded
    │   ├── ForeignThreadError   a task called from a thread that is not the workflow's
    │   ├── LeaseLostError       another driver owns this run now
    │   ├── UnknownOutcomeError  a step that is not idempotent may or may not have run
    │   └── RunKilledError       the run was killed
    ├── TaskError                a task failed, as its caller in the workflow sees it
    │   ├── UserCodeError        the user's code raised; carries type, message, file, line, source
    │   ├── TaskTimeoutError
    │   ├── PendingTimeoutError  it waited too long for room in a cluster, or for its environment
    │   ├── TaskKilledError
    │   ├── OutOfMemoryError     the resident size went over the task's limit
    │   └── WorkerLostError      the process of the task ended without a result
    ├── ExecutorError            an executor cannot take or reach a task
    └── LlmError                 planning, tuning or measuring a language model cannot go on
        ├── ModelError           a config.json, weights or a tokenizer that are no model that can be used here
        ├── DatasetError         rows or a source of rows that cannot be used
        ├── CheckpointError      a checkpoint that cannot be written or read
        ├── DivergedError        NaN, or a loss that ran away, and the policy is to stop
        ├── DeviceMemoryError    it does not fit into the memory of the device; says what the plan says
        ├── EngineError          an engine that cannot be started, or that ended with requests in flight
        ├── ScoringError         a scoring job that cannot start or go on: its manifest, its output, its workers
        ├── PricingError         tokens or prices that cannot be counted or found
        ├── CorpusError          documents, an index or labelled questions that cannot be used
        ├── CalibrationError     a risk that cannot be promised from the questions given
        └── SuiteError           a suite of cases, a recording or a comparison that cannot be used

Messages say what happened, to which object, and what to do next. This module knows no kind and imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "AlreadyExistsError",
    "ApiError",
    "ArgumentsError",
    "BadRequestError",
    "CalibrationError",
    "CheckpointError",
    "CodeLocation",
    "CodecError",
    "ConflictError",
    "CorpusError",
    "CorruptDatabaseError",
    "DatasetError",
    "DeviceMemoryError",
    "DivergedError",
    "EngineError",
    "ExecutorError",
    "ExpiredError",
    "FieldError",
    "ForbiddenError",
    "ForeignThreadError",
    "IntegrityError",
    "InternalError",
    "InvalidError",
    "LeaseLostError",
    "LlmError",
    "MethodNotAllowedError",
    "MichelangeloError",
    "ModelError",
    "NewerSchemaError",
    "NonDeterminismError",
    "NotFoundError",
    "OutOfMemoryError",
    "PendingTimeoutError",
    "PricingError",
    "RequestTooLargeError",
    "RequirementsError",
    "RunKilledError",
    "ScoringError",
    "SettingsError",
    "SourceError",
    "StorageError",
    "StoreUnavailableError",
    "SuiteError",
    "TaskError",
    "TaskKilledError",
    "TaskTimeoutError",
    "TooManyRequestsError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownOutcomeError",
    "UnsupportedMediaTypeError",
    "UserCodeError",
    "WorkerLostError",
    "WorkflowError",
]


class MichelangeloError(Exception):
    """Root of every error that this package raises on purpose."""

    exit_code: ClassVar[int] = 1
    """What a command line program exits with when this error ends it."""
    was_shown = False
    """Whether a person has been told of it already, such as by the progress of the run that it ended."""

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else self.__class__.__name__


# --- the API ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: `path` as Kubernetes writes it (`spec.tasks[0].name`), `reason` one of the
    FieldValue… causes of the Kubernetes Status, `message` what is wrong and what would be right."""

    path: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ApiError(MichelangeloError):
    """An API verb was refused. Subclasses fix `code` (HTTP) and `reason` (Kubernetes)."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "Unknown"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = dict(details or {})


class BadRequestError(ApiError):
    code, reason, exit_code = 400, "BadRequest", 2


class UnauthorizedError(ApiError):
    code, reason, exit_code = 401, "Unauthorized", 4


class ForbiddenError(ApiError):
    code, reason, exit_code = 403, "Forbidden", 4


class NotFoundError(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowedError(ApiError):
    code, reason = 405, "MethodNotAllowed"


class AlreadyExistsError(ApiError):
    code, reason = 409, "AlreadyExists"


class ConflictError(ApiError):
    code, reason = 409, "Conflict"


class ExpiredError(ApiError):
    code, reason = 410, "Expired"


class RequestTooLargeError(ApiError):
    code, reason, exit_code = 413, "RequestEntityTooLarge", 2


class UnsupportedMediaTypeError(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class InvalidError(ApiError):
    """An object failed validation; `errors` holds every wrong field."""

    code, reason, exit_code = 422, "Invalid", 2

    def __init__(
        self, message: str, *, errors: Sequence[FieldError] = (), details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, details=details)
        self.errors: tuple[FieldError, ...] = tuple(errors)


class TooManyRequestsError(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class UnavailableError(ApiError):
    code, reason, exit_code = 503, "ServiceUnavailable", 3


# --- storage, settings ------------------------------------------------------------------------------------


class StorageError(MichelangeloError):
    """The database or the blob store cannot do what was asked."""

    exit_code = 5


class CorruptDatabaseError(StorageError):
    """The database file is damaged, or is no database of ours."""


class NewerSchemaError(StorageError):
    """The database file was written by a newer version of this program."""


class IntegrityError(StorageError):
    """The bytes of a blob do not match its digest."""


class StoreUnavailableError(StorageError):
    """The blob store could not be reached for as long as it was tried; nothing is wrong with what was asked."""


class SettingsError(MichelangeloError):
    """A setting, a command line argument or a configuration file is wrong."""

    exit_code = 2


# --- workflows and tasks ----------------------------------------------------------------------------------


class WorkflowError(MichelangeloError):
    """A run cannot start or cannot go on."""


class ArgumentsError(WorkflowError):
    """Arguments do not fit the signature; `errors` names each parameter."""

    exit_code = 2

    def __init__(self, message: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors: tuple[FieldError, ...] = tuple(errors)


class CodecError(WorkflowError):
    """A value that no codec can carry, or bytes that a codec cannot read."""


class SourceError(WorkflowError):
    """A workflow file that does not import, or that has no such workflow."""

    exit_code = 2


class RequirementsError(WorkflowError):
    """Requirements of a task that cannot be resolved or installed; the message has the resolver's own words."""

    exit_code = 2


class NonDeterminismError(WorkflowError):
    """Replay met another step than the one that the journal holds."""


class ForeignThreadError(WorkflowError):
    """A task was called from a thread that does not run the workflow."""


class LeaseLostError(WorkflowError):
    """Another driver owns this run now; this one must stop without a further write."""


class UnknownOutcomeError(WorkflowError):
    """A step with `idempotent=False` may or may not have run; a person has to decide."""


class RunKilledError(WorkflowError):
    """The run was killed."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class CodeLocation:
    """Where in the user's code something happened."""

    file: str
    line: int
    function: str = ""
    source: str = ""


class TaskError(MichelangeloError):
    """A task failed, as its caller in the workflow sees it."""

    def __init__(self, message: str, *, task: str = "", step: str = "") -> None:
        super().__init__(message)
        self.task = task
        self.step = step


class UserCodeError(TaskError):
    """The user's code raised. `cause_type` is the qualified name of the exception's class."""

    def __init__(
        self,
        message: str,
        *,
        task: str = "",
        step: str = "",
        cause_type: str = "",
        location: CodeLocation | None = None,
        traceback: str = "",
        cause_types: Sequence[str] = (),
    ) -> None:
        super().__init__(message, task=task, step=step)
        self.cause_type = cause_type
        self.cause_types: tuple[str, ...] = tuple(cause_types)
        """The qualified names of the exception's class and of all its bases, nearest first."""
        self.location = location
        self.traceback = traceback


class TaskTimeoutError(TaskError):
    """A task ran longer than its timeout and was ended, with its whole process group."""


class PendingTimeoutError(TaskError):
    """A task waited longer than its `pending_timeout_seconds` to be started; the message says for what."""


class TaskKilledError(TaskError):
    """A task was ended because its run was killed."""


class OutOfMemoryError(TaskError):
    """A task's resident size went over its memory limit."""


class WorkerLostError(TaskError):
    """The process that ran a task ended without a result (signal, `os._exit`, loss of the machine)."""


class ExecutorError(MichelangeloError):
    """An executor cannot take or reach a task."""


# --- language models --------------------------------------------------------------------------------------


class LlmError(MichelangeloError):
    """Planning, tuning or measuring a language model cannot go on."""


class ModelError(LlmError):
    """A config.json, weights or a tokenizer that are no model that can be used here."""

    exit_code = 2


class DatasetError(LlmError):
    """Rows, or a source of rows, that cannot be used."""

    exit_code = 2


class CheckpointError(LlmError):
    """A checkpoint that cannot be written or read."""

    exit_code = 5


class DivergedError(LlmError):
    """The loss became NaN or ran away, and the policy is to stop."""


class DeviceMemoryError(LlmError):
    """It does not fit into the memory of the device; the message says what the plan says."""


class EngineError(LlmError):
    """An engine that cannot be started, or that ended with requests in flight."""

    exit_code = 5


class ScoringError(LlmError):
    """A scoring job that cannot start or go on: its manifest, its output, its workers."""

    exit_code = 2


class PricingError(LlmError):
    """Tokens that cannot be counted, or a price that nobody knows."""

    exit_code = 2


class CorpusError(LlmError):
    """Documents, an index or labelled questions that cannot be used."""

    exit_code = 2


class CalibrationError(LlmError):
    """A risk that cannot be promised from the questions given; the message says how many it takes."""

    exit_code = 2


class SuiteError(LlmError):
    """A suite of cases, a recording or a comparison that cannot be used."""

    exit_code = 2
