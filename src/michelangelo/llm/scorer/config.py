"""What a scoring job is told: one document, checked as a whole before anything is read, loaded or written.

It knows names and numbers only. All wrong fields are reported at once, with their paths. `identity` is the part that
decides what comes out: a job that was begun with one goes on with the same one only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import pydantic
from pydantic import Field

from michelangelo import errors
from michelangelo.llm import config_file
from michelangelo.llm.finetune import overrides
from michelangelo.llm.scorer.engine import Sampling

__all__ = [
    "ChoicesConfig",
    "EngineConfig",
    "ErrorBudget",
    "InputConfig",
    "JobTask",
    "JudgeConfig",
    "LimitsConfig",
    "OutputConfig",
    "PredictionConfig",
    "PromptConfig",
    "ReplicaConfig",
    "SamplingConfig",
    "ScoreConfig",
    "identity",
    "load",
    "parse",
    "read",
]

JobTask: TypeAlias = Literal["generate", "choices", "embed", "reward", "judge"]
_BUDGET: Final = re.compile(r"^(\d+(?:\.\d+)?)%$|^(\d+)$")
_DEFAULT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["score"],
    "additionalProperties": False,
}
_FIRST_KIND: Final = re.compile(r"^replicas\.(?!\d)")
_Positive = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0.0)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class InputConfig(_Section):
    """Where the rows are."""

    path: tuple[str, ...] = ()
    """Files, folders, patterns with *, fsspec URLs (s3://, hdfs://). Empty: a data set is given by the program."""
    format: Literal["auto", "jsonl", "parquet", "hf", "ray", "openai"] = "auto"
    """openai: lines of a batch file. ray: whatever Ray Data reads (csv, json, parquet, text)."""
    split: str = "train"
    """Of a Hugging Face data set."""
    limit: int = Field(default=0, ge=0)
    """The first so many rows of all; 0: every row."""

    @pydantic.field_validator("path", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class OutputConfig(_Section):
    """Where the results go, one row for each row of the input, in its order."""

    path: str
    """A file or an fsspec URL."""
    format: Literal["auto", "jsonl", "parquet", "openai"] = "auto"
    """auto: by the name; openai where the input is a batch file."""
    keep: tuple[str, ...] = ()
    """Columns of the input that are repeated in the output; `*`: all."""


class PromptConfig(_Section):
    """How a row becomes a prompt. Templates are Jinja over the row's columns; `@FILE` reads one from a file."""

    template: str = ""
    """Empty: the column `messages_column` if the row has it, else the column `prompt_column`."""
    system: str = ""
    """Makes a chat of a prompt, and comes before the messages of one that has no system prompt."""
    chat: bool = False
    """The prompt is what a user says, in the model's own chat format, instead of text to go on with."""
    prompt_column: str = "prompt"
    messages_column: str = "messages"
    tools_column: str = "tools"
    sampling_column: str = "sampling"
    """Sampling parameters of a row, over those of the job."""
    id_column: str = "id"
    """Repeated in the output where a row has it."""


class SamplingConfig(_Section):
    """How tokens are chosen; a row's own column goes before."""

    max_tokens: _Positive = 256
    temperature: float = Field(default=0.0, ge=0.0, le=100.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = Field(default=None, ge=0, le=100)
    json_schema: dict[str, Any] | None = None
    ignores_eos: bool = False

    @pydantic.field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def to_sampling(self) -> Sampling:
        return Sampling(**{name: getattr(self, name) for name in type(self).model_fields})


class ChoicesConfig(_Section):
    """Task choices: which of several continuations the model finds likeliest."""

    values: tuple[str, ...] = ()
    """Templates over the row's columns."""
    column: str = ""
    """A row's own list of continuations."""
    answer_column: str = ""
    """The right one, as its text or its number from 0: the report then has the accuracy."""
    per_token: bool = False
    """Compare log-likelihoods per token instead of sums: else a shorter continuation has the advantage."""


class JudgeConfig(_Section):
    """Task judge: the prompt is a rubric, and the answer, a JSON document, holds the score."""

    json_schema: dict[str, Any] = dict(_DEFAULT_SCHEMA)
    score_field: str = "score"
    minimum: float = 1.0
    maximum: float = 5.0
    """The score's range: outside it a row failed. The output also has it scaled to 0 … 1."""


class EngineConfig(_Section):
    """Which engine, and beside it the fields of that engine's own configuration."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    kind: str = "torch"
    """torch, vllm, http, stub; or python, with `target: FILE.py:FUNCTION` that returns an engine."""

    @property
    def options(self) -> dict[str, Any]:
        """All but the kind."""
        return dict(self.model_extra or {})


class ReplicaConfig(_Section):
    """One kind of replicas: the same engine on the same resources, as many as there is work for."""

    name: str = ""
    engine: EngineConfig | None = None
    """None: the job's."""
    min: int = Field(default=1, ge=0, le=4096)
    max: int = Field(default=1, ge=1, le=4096)
    """Between both it grows and shrinks by the number of shards that wait."""
    runner: Literal["process", "thread", "ray"] = "process"
    num_cpus: float = Field(default=1.0, ge=0.0)
    num_gpus: float = Field(default=0.0, ge=0.0)
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray's own, by name."""
    hardware: str = ""
    """A GPU of the planner's catalogue, `h100` or `h100:2`: for its price and for the prediction."""
    price_per_hour: float | None = Field(default=None, ge=0.0)
    """Of one replica; None: the planner's list price of `hardware`, if that is given."""


class LimitsConfig(_Section):
    """When something has gone wrong for long enough."""

    request_seconds: _Seconds = 600.0
    """A request that takes longer is cancelled, and its row failed."""
    engine_seconds: _Seconds = 300.0
    """An engine that does not come back from one call for so long is replaced."""
    start_seconds: _Seconds = 1800.0
    """For opening an engine."""
    max_errors: str = ""
    """Failed rows after which the job stops: `100`, or `5%` of the rows done (100 of them at least); empty: never."""
    max_restarts: int = Field(default=10, ge=0)
    """Engines that may be lost without a single row done in between."""
    max_deaths_per_row: _Positive = 2
    """Engines that one row may end before it is given up."""

    @pydantic.field_validator("max_errors", mode="before")
    @classmethod
    def _budget(cls, value: Any) -> Any:
        text = str(value)
        if text and not _BUDGET.match(text):
            raise ValueError("must be a number of rows (100) or a share of them (5%)")
        return text


class PredictionConfig(_Section):
    """What the planner says the throughput will be, beside what it was."""

    model: str = ""
    """A name of `mactl llm models` or a folder with config.json; empty: the engine's, where it names one."""
    hardware: str = ""
    """Empty: that of the first replicas."""
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    """Expected per row; 0: as measured, so that there is no prediction before the run."""
    precision: Literal["bf16", "fp8", "int4"] = "bf16"


class ScoreConfig(_Section):
    """One scoring job."""

    input: InputConfig = InputConfig()
    output: OutputConfig
    task: JobTask = "generate"
    prompt: PromptConfig = PromptConfig()
    sampling: SamplingConfig = SamplingConfig()
    choices: ChoicesConfig = ChoicesConfig()
    judge: JudgeConfig = JudgeConfig()
    engine: EngineConfig = EngineConfig()
    replicas: tuple[ReplicaConfig, ...] = Field(default=(ReplicaConfig(),), min_length=1)
    limits: LimitsConfig = LimitsConfig()
    prediction: PredictionConfig = PredictionConfig()
    folder: str = ""
    """Where the state of the job is kept until it ends, a local or shared folder; empty: OUTPUT.job."""
    shard_rows: int = Field(default=0, ge=0)
    """Rows that a replica takes at once; 0: by the number of rows."""
    ray_address: str = ""

    @pydantic.field_validator("replicas", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, Mapping) else value

    @pydantic.model_validator(mode="after")
    def _check_combinations(self) -> Self:
        wrong = [*self._task_faults(), *self._place_faults()]
        for number, group in enumerate(self.replicas):
            if group.min > group.max:
                wrong.append(f"replicas.{number}.min: {group.min} is more than max {group.max}")
            if group.num_gpus and group.runner != "ray":
                wrong.append(f"replicas.{number}.num_gpus: only Ray gives GPUs out; say runner: ray, or leave it out")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _task_faults(self) -> list[str]:
        wrong = []
        if self.task == "choices" and bool(self.choices.values) == bool(self.choices.column):
            wrong.append("choices: give values or column, one of them, for the task choices")
        if self.task == "judge":
            if self.judge.minimum >= self.judge.maximum:
                wrong.append("judge.minimum: must be less than judge.maximum")
            if self.sampling.json_schema is not None:
                wrong.append("sampling.json_schema: the task judge has its own, judge.json_schema")
        return wrong

    def _place_faults(self) -> list[str]:
        wrong = []
        if "://" in self.output.path and not self.folder:
            wrong.append("folder: must be given where the output is a URL: a local or shared folder for its state")
        is_batch = self.input.format == "openai"
        if is_batch and self.task not in ("generate", "embed"):
            wrong.append(f"task: {self.task} has no form in a batch file")
        if self.output.format == "openai" and not is_batch:
            wrong.append("output.format: openai answers a batch file only (input.format: openai)")
        return wrong

    @property
    def output_format(self) -> Literal["jsonl", "parquet", "openai"]:
        if self.output.format != "auto":
            return self.output.format
        if self.output.path.lower().endswith(".parquet"):
            return "parquet"
        return "openai" if self.input.format == "openai" else "jsonl"

    @property
    def job_folder(self) -> Path:
        return Path(self.folder or f"{self.output.path}.job")

    def engine_of(self, group: ReplicaConfig) -> EngineConfig:
        return group.engine or self.engine

    @property
    def error_budget(self) -> ErrorBudget:
        text = self.limits.max_errors
        if text.endswith("%"):
            return ErrorBudget(share=float(text[:-1]) / 100)
        return ErrorBudget(rows=int(text) if text else None)


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """Failed rows that a job bears; both None: any number."""

    rows: int | None = None
    share: float | None = None
    least_rows: int = 100
    """Done before a share is looked at, or all of them."""

    def is_over(self, *, failed: int, done: int, total: int) -> bool:
        if self.rows is not None:
            return failed > self.rows
        return self.share is not None and done >= min(self.least_rows, total) and failed > self.share * done


def identity(config: ScoreConfig) -> dict[str, Any]:
    """What decides the output, as JSON: not who computes it, how long it may take, or what it costs."""
    values = config.model_dump(mode="json", include={"task", "prompt", "sampling", "choices", "judge"})
    engines = [config.engine_of(group).model_dump(mode="json") for group in config.replicas]
    unique = sorted({json.dumps(engine, sort_keys=True) for engine in engines})
    return {
        **values,
        "engines": [json.loads(engine) for engine in unique],
        "input": {"format": config.input.format, "limit": config.input.limit},
        "output": {"format": config.output_format, "keep": list(config.output.keep)},
    }


def load(path: str, changes: Sequence[str] = ()) -> ScoreConfig:
    """A YAML or JSON file (empty: none), and changes PATH=VALUE to it. Raises SettingsError with all that is wrong."""
    source = path or "the options"
    given = read(path) if path else {}
    if isinstance(given.get("replicas"), list):
        # `replicas.max=2` means the first kind, whether it is written as a list or not.
        changes = [_FIRST_KIND.sub("replicas.0.", change) for change in changes]
    document, wrong = overrides.apply(given, changes)
    try:
        config = parse(document, source=source)
    except errors.SettingsError as e:
        wrong = [*e.message.splitlines()[1:], *wrong]
    else:
        if not wrong:
            return config
    raise errors.SettingsError(f"{source}: wrong fields:\n" + "\n".join(wrong))


def read(path: str) -> Mapping[str, Any]:
    """The document in a file, unchecked. Raises SettingsError if it is no mapping."""
    return config_file.read(path, what="a job", needs="input and output")


def parse(document: Mapping[str, Any], *, source: str = "configuration") -> ScoreConfig:
    """The same from a mapping. Raises SettingsError that names every wrong field."""
    try:
        return ScoreConfig.model_validate(document)
    except pydantic.ValidationError as e:
        raise config_file.wrong_fields(source, e) from e
