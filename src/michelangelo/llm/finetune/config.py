"""What a training run is told: one document, checked as a whole before anything is loaded.

It knows names and numbers only; `model`, `data` and the others give them meaning. All wrong fields are reported at
once, with their paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field

from michelangelo.llm import config_file
from michelangelo.llm.training_setup import Checkpointing, Method, Objective, Offload, Optimizer, Precision, Sharding

__all__ = [
    "AdapterConfig",
    "CheckpointConfig",
    "DataConfig",
    "FinetuneConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PolicyConfig",
    "Positive",
    "PreferenceConfig",
    "Share",
    "SourceConfig",
    "TrackerConfig",
    "TrainingConfig",
    "load",
    "parse",
    "read",
]

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """Which model, and how its parts are computed."""

    path: str
    """A folder with config.json, weights and tokenizer, or a name that Transformers knows."""
    tokenizer: str = ""
    """Where the tokenizer is; empty: with the model."""
    from_scratch: bool = False
    """Random weights of the shape that config.json gives."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "auto"
    liger: bool = False
    """Liger's Triton kernels for norms, rotary embedding and MLP (a GPU and the package are needed)."""


class AdapterConfig(_Section):
    """What is trained of the model."""

    method: Method = "lora"
    rank: Positive = 16
    alpha: float = Field(default=32.0, gt=0.0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: tuple[str, ...] = ("all",)
    """`all`: every projection of attention and MLP, experts of a mixture too; or module names (`q_proj`)."""
    double_quantization: bool = True
    """QLoRA: also the scales of the 4-bit blocks are quantised."""


class SourceConfig(_Section):
    """One source of rows."""

    path: str
    """A file, a folder, a pattern with *, an fsspec URL (s3://, hdfs://), or a dataset for `format: hf`."""
    format: Literal["auto", "jsonl", "parquet", "text", "hf", "ray"] = "auto"
    split: str = "train"
    """Of a Hugging Face dataset."""
    weight: float = Field(default=1.0, gt=0.0)
    """How often its rows come, relative to the other sources."""


class DataConfig(_Section):
    """Rows and how they become sequences of tokens."""

    train: tuple[SourceConfig, ...] = Field(min_length=1)
    validation: tuple[SourceConfig, ...] = ()
    validation_share: Share = 0.0
    """Of the training rows, held out by their digest when there is no validation source."""
    sequence_length: Positive = 2048
    packing: bool = True
    text_field: str = "text"
    messages_field: str = "messages"
    prompt_field: str = "prompt"
    completion_field: str = "completion"
    chosen_field: str = "chosen"
    rejected_field: str = "rejected"
    chat_template: str = ""
    """A Jinja template, or a file with one; empty: the tokenizer's."""
    completion_only: bool = True
    """The loss is over completions and assistant messages only."""
    long_samples: Literal["truncate", "split", "drop"] = "truncate"
    max_bad_rows: int = Field(default=100, ge=0)
    """Rows that may be malformed or empty before the run stops; the first ones are listed."""
    max_bad_share: Share = 0.05
    seed: int = 0
    shuffle_buffer: int = Field(default=10_000, ge=0)
    """Rows over which a stream is shuffled; 0: in the order of the source."""
    streaming: bool = False
    """Never hold all rows: for sources larger than memory."""


class OptimizerConfig(_Section):
    """The optimizer and the course of the learning rate."""

    name: Optimizer = "adamw"
    learning_rate: float = Field(default=2e-4, gt=0.0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """0: not clipped."""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    final_share: Share = 0.1
    """Of the learning rate, at the end of the schedule."""
    decay_share: Share = 0.2
    """`wsd`: the share of the steps in which the rate falls."""


class TrainingConfig(_Section):
    """How long, how much at once, and how it is computed."""

    max_steps: int = Field(default=0, ge=0)
    """Optimizer steps; 0: by epochs."""
    epochs: float = Field(default=1.0, gt=0.0)
    micro_batch: Positive = 1
    find_micro_batch: bool = False
    """Try for the largest micro batch that fits, and divide gradient_accumulation accordingly."""
    gradient_accumulation: Positive = 1
    precision: Precision = "bf16_mixed"
    checkpointing: Checkpointing = "none"
    cross_entropy: Literal["plain", "chunked", "liger"] = "chunked"
    compiled: bool | Literal["auto"] = "auto"
    """torch.compile of each layer; auto: on a GPU."""
    eval_every: int = Field(default=0, ge=0)
    """Optimizer steps between evaluations; 0: at the end only, if there is validation data."""
    eval_batches: int = Field(default=0, ge=0)
    """0: all of the validation data."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ParallelConfig(_Section):
    """Who holds which part, and how the processes are started."""

    sharding: Sharding = "none"
    engine: Literal["torch", "deepspeed"] = "torch"
    """What divides: PyTorch itself (FSDP2 does all of `sharding`), or DeepSpeed (zero1, zero2, zero3)."""
    offload: Offload = "none"
    tensor_parallel: Positive = 1
    num_workers: Positive = 1
    """Processes, one per GPU."""
    launcher: Literal["auto", "none", "local", "ray"] = "auto"
    """auto: none for one worker, local processes for several, ray where `ray_address` is set."""
    ray_address: str = ""
    min_workers: int = Field(default=0, ge=0)
    """Ray: go on with as few when nodes are lost; 0: num_workers."""
    max_failures: int = Field(default=3, ge=0)
    """Losses of workers or nodes after which the run gives up."""


class CheckpointConfig(_Section):
    """When the state of a run is kept, where, and how much of it."""

    every_steps: int = Field(default=0, ge=0)
    """0: at the end only."""
    keep_last: Positive = 2
    keep_best: int = Field(default=1, ge=0)
    """By validation loss."""
    asynchronous: bool = True
    folder: str = ""
    """A folder or an fsspec URL; empty: `checkpoints` in the output folder."""
    resume: Literal["auto", "never"] | str = "auto"
    """auto: from the newest whole checkpoint, if there is one; or the path of one."""
    newer_than: int | None = Field(default=None, ge=0)
    """Only checkpoints with a higher number are of this run. Found by the program where `resume` is not auto, so that a
    run goes on from its own ones when its workers are started again."""
    upload_attempts: Positive = 3


class TrackerConfig(_Section):
    """One tracker. What cannot be reached is said once, and training goes on."""

    kind: Literal["mlflow", "comet", "tensorboard", "wandb"]
    project: str = ""
    name: str = ""
    address: str = ""
    """A server or a folder; empty: the tracker's default, offline where it has such a mode."""
    offline: bool = True


class PolicyConfig(_Section):
    """What happens when numbers go wrong, and when it is enough."""

    on_nan: Literal["stop", "skip", "roll_back"] = "stop"
    on_spike: Literal["warn", "skip", "roll_back", "stop"] = "warn"
    spike_deviations: float = Field(default=6.0, gt=0.0)
    """Robust standard deviations of the last `spike_window` losses."""
    spike_window: Annotated[int, Field(ge=8)] = 64
    max_skips: Positive = 10
    """In a row, or roll-backs to the same checkpoint, before the run stops."""
    grad_norm_alert: float = Field(default=0.0, ge=0.0)
    """0: ten times the running median."""
    early_stop_evaluations: int = Field(default=0, ge=0)
    """Evaluations without an improvement of at least `early_stop_improvement` before the run ends; 0: never."""
    early_stop_improvement: float = Field(default=0.0, ge=0.0)


class PreferenceConfig(_Section):
    """DPO."""

    beta: float = Field(default=0.1, gt=0.0)
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    sft_weight: float = Field(default=0.0, ge=0.0)
    """Of the chosen answers' next-token loss, added to the preference loss."""
    precompute_reference: bool = False
    """Ask the reference for all answers once, before the first step: then no step does, and full tuning needs no frozen
    copy of the model."""


class FinetuneConfig(_Section):
    """One training run."""

    model: ModelConfig
    data: DataConfig
    output: str
    """The folder for results, logs and, unless another is named, checkpoints."""
    objective: Objective = "sft"
    adapter: AdapterConfig = AdapterConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    preference: PreferenceConfig = PreferenceConfig()
    policy: PolicyConfig = PolicyConfig()
    trackers: tuple[TrackerConfig, ...] = ()

    @pydantic.model_validator(mode="after")
    def _check_combinations(self) -> Self:
        wrong = []
        parallel = self.parallel
        if parallel.num_workers % parallel.tensor_parallel:
            wrong.append(
                f"parallel.tensor_parallel: {parallel.tensor_parallel} does not divide num_workers "
                f"{parallel.num_workers}"
            )
        if parallel.offload == "parameters" and parallel.sharding not in ("fsdp2", "zero3"):
            wrong.append(
                f"parallel.offload: parameters can rest in the host with fsdp2 or zero3, not with {parallel.sharding}"
            )
        if parallel.min_workers > parallel.num_workers:
            wrong.append(
                f"parallel.min_workers: {parallel.min_workers} is more than num_workers {parallel.num_workers}"
            )
        if self.adapter.method == "qlora" and parallel.sharding in ("fsdp2", "zero3"):
            wrong.append(
                f"parallel.sharding: weights in 4 bits are not divided by {parallel.sharding}; use none, zero1, zero2"
            )
        if self.preference.precompute_reference and self.data.streaming:
            wrong.append("preference.precompute_reference: needs all rows beforehand, so data.streaming: false")
        if self.adapter.method == "qlora" and self.training.precision == "fp32":
            wrong.append("training.precision: qlora computes in bf16")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self


def load(path: str) -> FinetuneConfig:
    """A YAML or JSON file. Raises SettingsError."""
    return parse(read(path), source=path)


def read(path: str) -> Mapping[str, Any]:
    """The document in a file, unchecked. Raises SettingsError if it is no mapping."""
    return config_file.read(path, what="a run", needs="model, data and output")


def parse(document: Mapping[str, Any], *, source: str = "configuration") -> FinetuneConfig:
    """The same from a mapping. Raises SettingsError that names every wrong field."""
    try:
        return FinetuneConfig.model_validate(document)
    except pydantic.ValidationError as e:
        raise config_file.wrong_fields(source, e) from e
