"""A training run as a whole: what `mactl llm finetune` does, and what a program calls. It puts the parts together.

With one worker all happens in this process; with several, `parallel.launching` starts processes that each call `work`.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from michelangelo import errors
from michelangelo.llm.finetune import (
    activation_checkpointing,
    adapters,
    batch_finder,
    causal_lm,
    host_optimizer,
    model,
    optimizers,
    prediction,
    preference,
    quantization,
    randomness,
    reference,
    trainer,
)
from michelangelo.llm.finetune.batch import Batches
from michelangelo.llm.finetune.checkpoint import finding, store
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.data import opening
from michelangelo.llm.finetune.meter import Meter
from michelangelo.llm.finetune.objective import Objective
from michelangelo.llm.finetune.parallel import choosing, launching
from michelangelo.llm.finetune.recording import Alert, Ended, Recorder, Sink, Started
from michelangelo.llm.finetune.sinks import events_file, terminal
from michelangelo.llm.finetune.strategy import MakeOptimizer, Strategy
from michelangelo.llm.finetune.trackers import making

__all__ = [
    "CONFIG",
    "EVENTS",
    "REPORT",
    "Display",
    "Report",
    "device_of",
    "finetune",
    "optimizer_maker",
    "last_saved",
    "prepare_model",
    "told_earlier_checkpoints",
    "work",
]

EVENTS = events_file.FILE_NAME
REPORT = "report.json"
CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Display:
    """Whether progress is printed to standard error, by whichever process is the first."""

    is_on: bool = False
    no_color: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended. Losses in nats per trained token, rates per second of all processes, memory in bytes."""

    outcome: str
    message: str
    output: str
    step: int
    loss: float
    validation_loss: float
    num_tokens: int
    num_trained_tokens: int
    tokens_per_second: float
    mfu: float
    peak_memory_bytes: int
    num_parameters: int
    num_trained_parameters: int
    device: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    """What was predicted, where the model and the hardware are known to the planner."""
    data: Mapping[str, Any] = field(default_factory=dict)
    alerts: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON: what is not known is null."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def finetune(
    config: FinetuneConfig,
    *,
    display: Display = Display(),
    sinks: Sequence[Sink] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Run it to its end. `sinks` and `should_stop` reach the loop where it runs in this process (one worker).

    Raises SettingsError, ModelError, DatasetError, CheckpointError, DivergedError, DeviceMemoryError.
    """
    if config.model.from_scratch and config.adapter.method != "full":
        raise errors.SettingsError("adapter.method: random weights (model.from_scratch) can only be trained in full")
    output = Path(config.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        kept = _with_whole_paths(config)
        (output / CONFIG).write_text(kept.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as e:
        raise errors.SettingsError(f"output {output}: cannot be written: {e.strerror}") from e
    config = told_earlier_checkpoints(config)
    if config.parallel.num_workers == 1 and launching.launcher_of(config) != "ray":
        report = work(config, display, sinks=sinks, should_stop=should_stop)
    else:
        report = launching.launch(config, work, display, should_stop=should_stop)
    return report


def _with_whole_paths(config: FinetuneConfig) -> FinetuneConfig:
    """As it is kept beside the run, which may be looked at from another folder."""
    folder = config.checkpoint.folder
    checkpoint = {} if not folder or "://" in folder else {"folder": str(Path(folder).absolute())}
    model_paths = {"path": _whole_path(config.model.path), "tokenizer": _whole_path(config.model.tokenizer)}
    return config.model_copy(
        update={
            "checkpoint": config.checkpoint.model_copy(update=checkpoint),
            "model": config.model.model_copy(update=model_paths),
            "data": config.data.model_copy(update={"chat_template": _whole_path(config.data.chat_template)}),
        }
    )


def _whole_path(words: str) -> str:
    """Of a file or a folder that is there; other words (a name, a template) as they are."""
    return str(Path(words).absolute()) if words and os.path.exists(words) else words


def told_earlier_checkpoints(config: FinetuneConfig) -> FinetuneConfig:
    """With the number of the newest checkpoint in the folder, where the run does not go on from what is there.

    Raises CheckpointError where the storage cannot be read.
    """
    if config.checkpoint.resume == "auto":
        return config
    number = finding.newest_number(_checkpoint_folder(config))
    return config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"newer_than": number})})


def last_saved(config: FinetuneConfig) -> tuple[int, str] | None:
    """Step and path of the checkpoint that the run saved last, by its events; None: there is none. Raises LlmError."""
    events = events_file.read(Path(config.output) / EVENTS)
    return next(((event["step"], event["path"]) for event in reversed(events) if event["event"] == "Saved"), None)


def _checkpoint_folder(config: FinetuneConfig) -> str:
    return config.checkpoint.folder or str(Path(config.output) / "checkpoints")


def work(
    config: FinetuneConfig,
    display: Display = Display(),
    *,
    sinks: Sequence[Sink] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Report:
    """One process's part of a run; the same report in each. Sinks are closed at its end.

    Out of memory, one process tries once more with a smaller micro batch and as many tokens per step.
    """
    strategy = choosing.make(config, device=device_of(config))
    recorder = Recorder([*sinks, *_own_sinks(config, display)] if strategy.rank == 0 else [])
    try:
        fitting = _fitting(config, strategy)
        report, problem = _attempt(fitting, strategy, recorder, should_stop)
        smaller = batch_finder.step_down(fitting) if strategy.world_size == 1 else None
        if report is None and smaller is not None:
            recorder.record(Alert(0, "OutOfMemory", f"{problem}; trying micro_batch {smaller.training.micro_batch}"))
            strategy = choosing.make(smaller, device=strategy.device)
            report, problem = _attempt(smaller, strategy, recorder, should_stop)
        if report is None:
            raise errors.DeviceMemoryError(problem)
        return report
    except errors.MichelangeloError as e:
        recorder.record(Ended(0, "Failed", e.message))
        raise
    finally:
        recorder.close()


def _attempt(
    config: FinetuneConfig, strategy: Strategy, recorder: Recorder, should_stop: Callable[[], bool]
) -> tuple[Report | None, str]:
    """The report, or why memory was short."""
    try:
        return _work(config, strategy, recorder, should_stop), ""
    except torch.OutOfMemoryError:
        problem = prediction.out_of_memory_text(config, strategy.device)
    finally:
        strategy.close()
    # Behind the exception, whose frames held the tensors.
    gc.collect()
    if strategy.device.type == "cuda":
        torch.cuda.empty_cache()
    return None, problem


def _fitting(config: FinetuneConfig, strategy: Strategy) -> FinetuneConfig:
    """With the largest micro batch that fits, if it is to be found; a run that goes on keeps the one it is told."""
    shape = prediction.shape_of(config) if config.training.find_micro_batch else None
    if shape is None:
        return config
    setup = prediction.setup_of(config, strategy.device, num_gpus=strategy.world_size)
    return batch_finder.fit(config, setup, predicted=prediction.largest_micro_batch(shape, setup, strategy.device))


def prepare_model(config: FinetuneConfig, device: torch.device) -> tuple[PreTrainedModel, Objective]:
    """Loaded, quantised, with adapters, recomputation and the loss installed, and compiled; not yet on the device."""
    precision = config.training.precision
    if config.adapter.method == "qlora":
        loaded = quantization.load(config.model, config.adapter, precision=precision, device=device)
    else:
        loaded = model.load(config.model, precision=precision, device=device)
    if config.data.packing and config.objective != "dpo":
        model.check_packing(loaded)
    if config.model.liger:
        model.use_liger(loaded)
    adapters.apply(loaded, config.adapter)
    activation_checkpointing.apply(loaded, config.training.checkpointing)
    objective: Objective
    if config.objective == "dpo":
        objective = preference.PreferenceObjective(loaded, config.preference)
    else:
        objective = causal_lm.CausalObjective(loaded, loss=config.training.cross_entropy)
    if config.training.compiled is True or (config.training.compiled == "auto" and device.type == "cuda"):
        for layer in model.decoder_layers(loaded):
            layer.compile()
    return loaded, objective


def device_of(config: FinetuneConfig) -> torch.device:
    """Of this process. Raises SettingsError if a GPU is wanted and there is none."""
    wanted = config.training.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise errors.SettingsError(
            "training.device cuda: PyTorch sees no GPU here; use device: cpu, or install a CUDA build"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _work(config: FinetuneConfig, strategy: Strategy, recorder: Recorder, should_stop: Callable[[], bool]) -> Report:
    randomness.seed(config.training.seed)
    tokenizer = model.load_tokenizer(config.model)
    loaded, objective = prepare_model(config, strategy.device)
    opened = _open_data(config, tokenizer, loaded, strategy)
    digest = reference.digest_of(loaded) if _asks_beforehand(config) else ""
    optimizer = strategy.prepare(loaded, optimizer_maker(config))
    train, validation = _with_reference(config, opened, objective, strategy, digest)
    randomness.seed(config.training.seed, strategy.rank)
    predicted = prediction.predict(config, strategy)
    meter = Meter(strategy.device, flops_per_token=predicted.flops_per_token, peak_flops=predicted.peak_flops)
    checkpoints = store.CheckpointStore(
        _checkpoint_folder(config),
        config.checkpoint,
        rank=strategy.rank,
        world_size=strategy.world_size,
        record=recorder.record,
    )
    # Counting reads data, so it is left out where the number of steps is said.
    num_batches = None if config.training.max_steps else opened.train.num_batches()
    parts = trainer.Parts(
        loaded,
        objective,
        strategy,
        optimizer,
        train,
        validation,
        checkpoints,
        recorder,
        meter,
        data_alerts=lambda step: opened.report.take_alerts(step),
        steps_per_epoch=(num_batches or 0) / config.training.gradient_accumulation,
    )
    total = _total_steps(config, num_batches)
    loop = trainer.Trainer(config, parts, total_steps=total, should_stop=should_stop)
    try:
        if (found := _checkpoint_to_resume(config, checkpoints)) is not None:
            loop.resume(found)
        counts = adapters.num_parameters(loaded)
        recorder.record(Started(config.model_dump(mode="json"), loop.progress.step, total, *counts, predicted.plan))
        outcome = loop.run()
    finally:
        checkpoints.close()
        opened.close()
    report = _report(config, outcome, parts, predicted, counts, opened.report.to_dict())
    if strategy.rank == 0:
        _write_report(config, report)
    recorder.record(Ended(report.step, outcome.outcome, outcome.message, report.to_dict()))
    return report


def _asks_beforehand(config: FinetuneConfig) -> bool:
    return config.objective == "dpo" and config.preference.precompute_reference


def _with_reference(
    config: FinetuneConfig, opened: opening.OpenedData, objective: Objective, strategy: Strategy, digest: str
) -> tuple[Batches, Batches | None]:
    """The data; what the reference says of it comes along where it is asked beforehand."""
    if not _asks_beforehand(config):
        return opened.train, opened.validation
    assert isinstance(objective, preference.PreferenceObjective)
    asked = objective
    there = [data for data in (opened.train, opened.validation) if data is not None]
    # Nothing that changes no value: a longer run, or one with other batches, finds it too.
    terms = [digest, config.model.attention, config.training.precision]
    table = reference.prepare(
        Path(config.output), " ".join(terms), there, strategy, lambda b: asked.reference(b.to(strategy.device)).cpu()
    )
    train = reference.ReferencedBatches(opened.train, table)
    return train, opened.validation and reference.ReferencedBatches(opened.validation, table)


def _open_data(
    config: FinetuneConfig, tokenizer: PreTrainedTokenizerBase, loaded: PreTrainedModel, strategy: Strategy
) -> opening.OpenedData:
    return opening.open_data(
        config.data,
        objective=config.objective,
        tokenizer=tokenizer,
        micro_batch=config.training.micro_batch,
        data_rank=strategy.data_rank,
        data_parallel=strategy.data_parallel,
        vocab_size=loaded.config.get_text_config().vocab_size,
    )


def optimizer_maker(config: FinetuneConfig) -> MakeOptimizer:
    """For `Strategy.prepare`: the optimizer over what is trained, on the host if it is to rest there."""

    def make(named: Iterable[tuple[str, nn.Parameter]]) -> optimizers.NamedOptimizer:
        if config.parallel.offload != "none":
            return host_optimizer.HostOptimizer(named, config.optimizer)
        return optimizers.build(
            named,
            config.optimizer,
            precision=config.training.precision,
            accumulate=config.training.gradient_accumulation > 1,
        )

    return make


def _total_steps(config: FinetuneConfig, num_batches: int | None) -> int:
    training = config.training
    if training.max_steps:
        return training.max_steps
    if num_batches is None:
        raise errors.SettingsError("training.max_steps: is needed, as the length of a stream is not known beforehand")
    return max(1, math.ceil(num_batches * training.epochs / training.gradient_accumulation))


def _checkpoint_to_resume(config: FinetuneConfig, checkpoints: store.CheckpointStore) -> finding.Checkpoint | None:
    wanted = config.checkpoint.resume
    if wanted == "auto":
        return checkpoints.newest()
    # One of this run is there only when its workers were lost.
    if config.checkpoint.newer_than is not None and (own := checkpoints.newest()) is not None:
        return own
    return None if wanted == "never" else checkpoints.named(wanted)


def _own_sinks(config: FinetuneConfig, display: Display) -> list[Sink]:
    folder = Path(config.output)
    sinks: list[Sink] = [events_file.EventsFile(folder / EVENTS)]
    if display.is_on:
        sinks.append(terminal.make(sys.stderr, no_color=display.no_color))
    return [*sinks, *(making.make(tracker, folder) for tracker in config.trackers)]


def _report(
    config: FinetuneConfig,
    outcome: trainer.Outcome,
    parts: trainer.Parts,
    predicted: prediction.Prediction,
    counts: tuple[int, int],
    data: Mapping[str, Any],
) -> Report:
    progress, rate = outcome.progress, parts.meter.median_rate()
    alerts = [f"step {a.step}: {a.kind}: {a.message}" for a in parts.recorder.alerts if isinstance(a, Alert)]
    return Report(
        outcome=outcome.outcome,
        message=outcome.message,
        output=config.output,
        step=progress.step,
        loss=progress.last_loss,
        validation_loss=progress.validation_loss,
        num_tokens=progress.num_tokens,
        num_trained_tokens=progress.num_trained_tokens,
        tokens_per_second=rate,
        mfu=parts.meter.mfu(rate),
        peak_memory_bytes=parts.meter.peak_memory_bytes,
        num_parameters=counts[0],
        num_trained_parameters=counts[1],
        device=predicted.device,
        plan=predicted.plan,
        data=data,
        alerts=alerts,
    )


def _write_report(config: FinetuneConfig, report: Report) -> None:
    """Whole or not at all."""
    path = Path(config.output) / REPORT
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(report.to_dict(), indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
