"""A few training steps of one setup on this hardware, measured: speed, memory, or that it does not fit.

Time and memory do not depend on what the weights or the tokens are, so both are random, from a seed, and nothing has to
be downloaded. It takes the trainer's own parts, so that what is measured is what a run does.
"""

from __future__ import annotations

import gc
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import torch

from michelangelo.llm import model_shape
from michelangelo.llm.finetune import attention, optimizers, prediction, running
from michelangelo.llm.finetune.batch import IGNORED, Batch
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.meter import without_pauses
from michelangelo.llm.finetune.parallel import choosing
from michelangelo.llm.mfu import flops
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Measurement", "configuration", "free_memory", "measure"]

_LEARNING_RATE: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One process's figures; `out_of_memory` ones have no speed."""

    model: str
    setup: TrainingSetup
    device: str
    tokens_per_second: float = math.nan
    seconds_per_step: float = math.nan
    mfu: float = math.nan
    """By the headline convention; NaN where the device's peak is not known."""
    hfu: float = math.nan
    model_flops_per_second: float = math.nan
    allocated_bytes: int = 0
    """The most that tensors held in a step. On a CPU 0: it is not counted there."""
    reserved_bytes: int = 0
    """The most that the allocator held."""
    first_step_seconds: float = math.nan
    """With compilation."""
    out_of_memory: bool = False
    losses: tuple[float, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON: what is not known is null."""
        values = asdict(self)
        values["setup"] = self.setup.to_dict()
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def measure(
    model: str, setup: TrainingSetup, *, device: torch.device, steps: int = 4, warm_up: int = 2, seed: int = 0
) -> Measurement:
    """`model`: a name of the catalogue, or a folder with config.json. One process.

    Raises ModelError, SettingsError; memory that is short is a result, no error.
    """
    config = configuration(model, setup, device)
    free_memory(device)
    try:
        return _measure(config, model, setup, device, (warm_up, steps), seed)
    except torch.OutOfMemoryError:
        return Measurement(model=model, setup=setup, device=prediction.device_name(device), out_of_memory=True)
    finally:
        free_memory(device)


def configuration(model: str, setup: TrainingSetup, device: torch.device) -> FinetuneConfig:
    """The run that `setup` describes, on random weights."""
    sharded = setup.num_gpus if setup.sharding != "none" or setup.num_gpus > 1 else 1
    return FinetuneConfig.model_validate(
        {
            "model": {
                "path": model,
                "from_scratch": True,
                "attention": "eager" if setup.attention == "eager" else "auto",
            },
            "data": {"train": [{"path": "-"}], "sequence_length": setup.sequence_length, "packing": setup.packing},
            "output": "-",
            "objective": setup.objective,
            "adapter": {"method": setup.method, "rank": setup.lora_rank, "targets": setup.lora_targets},
            "optimizer": {"name": setup.optimizer, "learning_rate": _LEARNING_RATE},
            "training": {
                "micro_batch": setup.micro_batch,
                "gradient_accumulation": setup.gradient_accumulation,
                "precision": setup.precision,
                "checkpointing": setup.checkpointing,
                "cross_entropy": setup.cross_entropy,
                "compiled": setup.compiled,
                "device": device.type,
            },
            "parallel": {
                "sharding": setup.sharding,
                "offload": setup.offload,
                "tensor_parallel": setup.tensor_parallel,
                "num_workers": sharded,
            },
        }
    )


def free_memory(device: torch.device) -> None:
    """Gives back what an earlier measurement left, so that the next one is not charged with it."""
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _measure(
    config: FinetuneConfig, model: str, setup: TrainingSetup, device: torch.device, counts: tuple[int, int], seed: int
) -> Measurement:
    warm_up, steps = counts
    torch.manual_seed(seed)
    strategy = choosing.make(config, device=device)
    loaded, objective = running.prepare_model(config, device)
    strategy.prepare(loaded, running.optimizer_maker(config))
    loaded.train()
    batch = _batch(setup, loaded.config.get_text_config().vocab_size, seed)
    seconds, losses = [], []
    with attention.fast_kernels(device), without_pauses():
        for step in range(warm_up + steps):
            if step == warm_up and device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            _wait(device)
            began = time.perf_counter()
            total = torch.zeros((), device=device)
            for position in range(setup.gradient_accumulation):
                loss, _ = objective.loss(batch.to(device))
                is_last = position == setup.gradient_accumulation - 1
                strategy.backward(loss / (batch.num_trained * setup.gradient_accumulation), is_last=is_last)
                total += loss.detach() / (batch.num_trained * setup.gradient_accumulation)
            strategy.step(config.optimizer.max_grad_norm, optimizers.finite)
            losses.append(float(total))
            _wait(device)
            seconds.append(time.perf_counter() - began)
    strategy.close()
    return _figures(model, setup, device, (seconds, warm_up), tuple(losses))


def _figures(
    model: str, setup: TrainingSetup, device: torch.device, timed: tuple[list[float], int], losses: tuple[float, ...]
) -> Measurement:
    seconds, warm_up = timed
    ordered = sorted(seconds[warm_up:])
    typical = ordered[len(ordered) // 2]
    rate = setup.tokens_per_step / setup.data_parallel / typical
    counted = flops.per_token(model_shape.load(model), sequence_length=setup.sequence_length, setup=setup)
    peak = prediction.peak_of(device, setup.precision)
    on_gpu = device.type == "cuda"
    return Measurement(
        model=model,
        setup=setup,
        device=prediction.device_name(device),
        tokens_per_second=rate,
        seconds_per_step=typical,
        mfu=rate * counted.by(flops.HEADLINE) / peak,
        hfu=rate * counted.hardware / peak,
        model_flops_per_second=rate * counted.by(flops.HEADLINE),
        allocated_bytes=int(torch.cuda.max_memory_allocated(device)) if on_gpu else 0,
        reserved_bytes=int(torch.cuda.max_memory_reserved(device)) if on_gpu else 0,
        first_step_seconds=seconds[0],
        losses=losses,
    )


def _batch(setup: TrainingSetup, vocab_size: int, seed: int) -> Batch:
    """Full rows of one document each: the most work that a batch of this size can be."""
    generator = torch.Generator().manual_seed(seed)
    rows, length = setup.micro_batch, setup.sequence_length
    tokens = torch.randint(0, vocab_size, (rows, length), generator=generator)
    labels = tokens.clone()
    labels[:, 0] = IGNORED
    positions = torch.arange(length).expand(rows, length).contiguous()
    return Batch(tokens, labels, positions, torch.zeros(rows, length, dtype=torch.int32), rows * (length - 1))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
