"""What the planner says of a run before it runs: the setup that a configuration amounts to, its memory, its FLOPs.

A model or a device that the planner does not know is no error here: the run goes on without a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from michelangelo import errors
from michelangelo.llm import model_shape
from michelangelo.llm.finetune import model
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.strategy import Strategy
from michelangelo.llm.mfu import flops
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import hardware, memory, throughput
from michelangelo.llm.training_setup import Precision, TrainingSetup

__all__ = [
    "Prediction",
    "device_name",
    "largest_micro_batch",
    "out_of_memory_text",
    "peak_of",
    "predict",
    "setup_of",
    "shape_of",
]

_GIB: Final = 1 << 30
_MAX_MICRO_BATCH: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class Prediction:
    """NaN and empty where the planner does not know the model or the device."""

    device: str
    flops_per_token: float = math.nan
    """By the headline convention."""
    peak_flops: float = math.nan
    """FLOP/s of all the run's devices."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """Memory of one process in bytes, with its parts and its interval; tokens/s of all processes."""


def predict(config: FinetuneConfig, strategy: Strategy) -> Prediction:
    """Of this process, on its device."""
    name = device_name(strategy.device)
    shape = shape_of(config)
    if shape is None:
        return Prediction(name)
    setup = setup_of(config, strategy.device, num_gpus=strategy.world_size)
    counted = flops.per_token(shape, sequence_length=config.data.sequence_length, setup=setup)
    peak = peak_of(strategy.device, config.training.precision) * strategy.world_size
    plan = _plan(shape, setup, strategy.device) if strategy.device.type == "cuda" else {}
    return Prediction(name, counted.by(flops.HEADLINE), peak, plan)


def setup_of(config: FinetuneConfig, device: torch.device, *, num_gpus: int = 1) -> TrainingSetup:
    """The same run in the planner's terms."""
    training = config.training
    compiled = training.compiled if isinstance(training.compiled, bool) else device.type == "cuda"
    return TrainingSetup(
        method=config.adapter.method,
        objective=config.objective,
        micro_batch=training.micro_batch,
        sequence_length=config.data.sequence_length,
        gradient_accumulation=training.gradient_accumulation,
        num_gpus=num_gpus,
        gpus_per_node=max(1, torch.cuda.device_count()) if device.type == "cuda" else num_gpus,
        sharding=config.parallel.sharding,
        tensor_parallel=config.parallel.tensor_parallel,
        offload=config.parallel.offload,
        checkpointing=training.checkpointing,
        attention="eager" if config.model.attention == "eager" else "flash",
        cross_entropy="plain" if training.cross_entropy == "plain" else "chunked",
        optimizer=config.optimizer.name,
        precision=training.precision,
        lora_rank=config.adapter.rank,
        lora_targets=config.adapter.targets,
        compiled=compiled,
        packing=config.data.packing,
        lora_dropout=config.adapter.dropout,
        double_quantization=config.adapter.double_quantization,
        reference_precomputed=config.objective == "dpo" and config.preference.precompute_reference,
    )


def shape_of(config: FinetuneConfig) -> ModelShape | None:
    """None for an architecture that the planner cannot count."""
    try:
        return model_shape.from_config(model.read_shape(config.model), config.model.path)
    except errors.ModelError:
        return None


def device_name(device: torch.device) -> str:
    """As the driver says, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_of(device: torch.device, precision: Precision) -> float:
    """FLOP/s of one device by the catalogue; NaN for one that it has not, and for processors."""
    found = _hardware(device)
    return math.nan if found is None else found.training_peak(precision)


def largest_micro_batch(shape: ModelShape, setup: TrainingSetup, device: torch.device) -> int:
    """By the plan, of those that the device's memory holds; 1 where even that is too much, or on a processor."""
    if device.type != "cuda":
        return setup.micro_batch
    room = torch.cuda.get_device_properties(device).total_memory

    def fits(batch: int) -> bool:
        return memory.estimate(shape, setup.replace(micro_batch=batch)).peak <= room

    low, high = 1, 2
    while fits(high) and high < _MAX_MICRO_BATCH:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def out_of_memory_text(config: FinetuneConfig, device: torch.device) -> str:
    """What happened, what the plan says of it, and what would need less."""
    batch = f"micro_batch {config.training.micro_batch} at {config.data.sequence_length} tokens"
    text = f"{batch} does not fit into {device_name(device)}"
    shape = shape_of(config)
    if shape is None:
        return f"{text}; take a smaller micro_batch, or training.checkpointing: full"
    setup = setup_of(config, device)
    estimate = memory.estimate(shape, setup)
    largest = sorted(estimate.gpu, key=lambda part: -part.bytes)[:3]
    parts = ", ".join(f"{part.name} {part.bytes / _GIB:.1f}" for part in largest)
    less = [
        f"{what}: {memory.estimate(shape, setup.replace(**change)).peak / _GIB:.1f} GiB"
        for what, change in _SMALLER
        if any(getattr(setup, key) != value for key, value in change.items())
    ]
    return (
        f"{text}; the plan says {estimate.peak / _GIB:.1f} GiB (mostly {parts}). "
        f"What it says of other settings: {'; '.join(less)}"
    )


_SMALLER: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    ("training.micro_batch 1", {"micro_batch": 1}),
    ("training.checkpointing full", {"checkpointing": "full"}),
    ("both", {"micro_batch": 1, "checkpointing": "full"}),
    ("adapter.method lora", {"method": "lora"}),
    ("adapter.method qlora", {"method": "qlora"}),
)


def _plan(shape: ModelShape, setup: TrainingSetup, device: torch.device) -> dict[str, Any]:
    estimate = memory.estimate(shape, setup)
    predicted = {
        "setup": setup.to_dict(),
        "allocated_bytes": estimate.allocated,
        "reserved_bytes": estimate.reserved,
        "low_bytes": estimate.low,
        "high_bytes": estimate.high,
        "components": {part.name: part.bytes for part in estimate.gpu},
    }
    known = _hardware(device)
    if known is not None:
        speed = throughput.estimate(shape, setup, known)
        predicted |= {
            "hardware": known.name,
            "tokens_per_second": speed.tokens_per_second,
            "low_tokens_per_second": speed.low * setup.num_gpus,
            "high_tokens_per_second": speed.high * setup.num_gpus,
            "mfu": speed.mfu,
        }
    return predicted


def _hardware(device: torch.device) -> hardware.Hardware | None:
    if device.type != "cuda":
        return None
    return hardware.of_device(device_name(device), torch.cuda.get_device_properties(device).total_memory)
