"""One setup on one kind of hardware, judged: does it fit, how fast is it, what does it cost.

It puts together what memory, throughput, cost and calibration say, and chooses nothing; `search` does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from michelangelo import errors
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import cost, memory, prices, throughput, wire_names
from michelangelo.llm.planner.calibration import Calibration, Factors
from michelangelo.llm.planner.cost import Cost, PowerRates
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.kernels import Stack
from michelangelo.llm.planner.memory import MemoryEstimate
from michelangelo.llm.planner.prices import PriceTable
from michelangelo.llm.planner.throughput import Throughput
from michelangelo.llm.training_setup import TrainingSetup

__all__ = [
    "Assumptions",
    "Plan",
    "Verdict",
    "calibrated_memory",
    "calibrated_speed",
    "check",
    "host_capacity",
    "make",
    "problems",
    "verdict_of",
]

Verdict: TypeAlias = Literal["fits", "tight", "no"]
"""`fits`: also the upper end of the interval does; `tight`: only the expected peak does; `no`: not even that."""

_HOST_SHARE: Final = 0.9
"""Of the host's memory, what a run may take: the rest is the system's, the page cache's and the workers' own."""
_LIMITS: Final = {
    "micro_batch": 1 << 20,
    "sequence_length": 1 << 24,
    "gradient_accumulation": 1 << 20,
    "num_gpus": 100_000,
    "tensor_parallel": 64,
    "lora_rank": 1 << 14,
}
_SHARDED_WEIGHTS: Final = ("fsdp2", "zero3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What a plan rests on beside the model, the setup and the hardware."""

    tokens: float = 1e8
    """To be learned from, all epochs together."""
    prices: PriceTable = field(default_factory=prices.bundled)
    provider: str = ""
    """Empty: the typical one."""
    power: PowerRates = field(default_factory=PowerRates)
    calibration: Calibration = field(default_factory=Calibration)
    stack: Stack | None = None
    """None: our trainer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Bytes, seconds, FLOP/s; see the parts."""

    model: str
    setup: TrainingSetup
    hardware: Hardware
    memory: MemoryEstimate
    """As the closed forms have it; `peak_bytes`, `low_bytes` and `high_bytes` are calibrated."""
    peak_bytes: int
    low_bytes: int
    high_bytes: int
    capacity_bytes: int
    """Of one GPU."""
    host_capacity_bytes: int
    """Of one node, as far as a run may take it."""
    verdict: Verdict
    throughput: Throughput
    cost: Cost
    factors: Factors

    @property
    def margin_bytes(self) -> int:
        """What is left over at the expected peak; negative: what is missing."""
        return self.capacity_bytes - self.peak_bytes

    @property
    def host_margin_bytes(self) -> int:
        return self.host_capacity_bytes - self.memory.host_bytes

    def to_dict(self) -> dict[str, Any]:
        """For JSON: bytes, seconds and tokens as numbers."""
        speed = {k: v for k, v in asdict(self.throughput).items() if k != "phases"}
        return {
            "model": self.model,
            "hardware": self.hardware.name,
            "setup": self.setup.to_dict(),
            "fits": self.verdict,
            "memory": {
                "peakBytes": self.peak_bytes,
                "lowBytes": self.low_bytes,
                "highBytes": self.high_bytes,
                "level": self.memory.level,
                "capacityBytes": self.capacity_bytes,
                "marginBytes": self.margin_bytes,
                "phase": self.memory.phase,
                "gpu": {part.name: part.bytes for part in self.memory.gpu},
                "host": {part.name: part.bytes for part in self.memory.host},
                "hostBytes": self.memory.host_bytes,
                "hostCapacityBytes": self.host_capacity_bytes,
            },
            "throughput": {wire_names.camel(k): v for k, v in speed.items()}
            | {"phases": {phase.name: phase.seconds for phase in self.throughput.phases}},
            "cost": wire_names.camel_keys(self.cost.to_dict()),
            "calibration": wire_names.camel_keys(self.factors.to_dict()),
        }


def make(shape: ModelShape, setup: TrainingSetup, hardware: Hardware, assumptions: Assumptions) -> Plan:
    """Raises SettingsError that names all that is wrong with the setup, ModelError for unknown lora_targets."""
    check(shape, setup, hardware)
    factors = assumptions.calibration.factors(hardware.name, setup)
    needed = memory.estimate(shape, setup)
    peak, low, high = calibrated_memory(needed, factors)
    speed = calibrated_speed(shape, setup, hardware, assumptions, factors)
    room = host_capacity(hardware)
    return Plan(
        model=shape.name,
        setup=setup,
        hardware=hardware,
        memory=needed,
        peak_bytes=peak,
        low_bytes=low,
        high_bytes=high,
        capacity_bytes=hardware.memory_bytes,
        host_capacity_bytes=room,
        verdict=verdict_of(peak, high, hardware.memory_bytes, needed.host_bytes, room),
        throughput=speed,
        cost=cost.estimate(
            speed,
            setup,
            hardware,
            tokens=assumptions.tokens,
            prices=assumptions.prices,
            provider=assumptions.provider,
            power=assumptions.power,
        ),
        factors=factors,
    )


def calibrated_memory(needed: MemoryEstimate, factors: Factors) -> tuple[int, int, int]:
    """Peak, low and high in bytes."""
    return round(needed.peak * factors.memory), round(needed.low * factors.memory), round(needed.high * factors.memory)


def calibrated_speed(
    shape: ModelShape, setup: TrainingSetup, hardware: Hardware, assumptions: Assumptions, factors: Factors
) -> Throughput:
    """With the interval of the runs themselves, where there are enough."""
    speed = throughput.estimate(shape, setup, hardware, stack=assumptions.stack, time_factor=factors.time)
    if factors.time_spread is None:
        return speed
    width = math.exp(factors.time_spread)
    rate = speed.tokens_per_second_per_gpu
    return replace(speed, low=rate / width, high=rate * width)


def host_capacity(hardware: Hardware) -> int:
    """Bytes of a node's memory that a run may take."""
    return int(hardware.host_memory_bytes * _HOST_SHARE)


def verdict_of(peak: int, high: int, capacity: int, host: int, room: int) -> Verdict:
    """`room`: of the host's memory."""
    if peak > capacity or host > room:
        return "no"
    return "fits" if high <= capacity else "tight"


def check(shape: ModelShape, setup: TrainingSetup, hardware: Hardware) -> None:
    """Raises SettingsError with all of `problems`."""
    if found := problems(shape, setup, hardware):
        raise errors.SettingsError("this setup cannot be:\n" + "\n".join(f"  {line}" for line in found))


def problems(shape: ModelShape, setup: TrainingSetup, hardware: Hardware) -> list[str]:
    """What is wrong with a setup, whatever memory there is: one line each, with the field first."""
    found = [
        f"{name}: {getattr(setup, name)} must be from 1 to {limit:,}"
        for name, limit in _LIMITS.items()
        if not 1 <= getattr(setup, name) <= limit
    ]
    if found:
        return found
    split = setup.tensor_parallel
    if setup.num_gpus % split:
        found.append(f"tensor_parallel: {split} does not divide the {setup.num_gpus} GPUs")
    if split > min(setup.gpus_per_node, setup.num_gpus):
        found.append(
            f"tensor_parallel: {split} is more than the {min(setup.gpus_per_node, setup.num_gpus)} GPUs of a node"
        )
    if split > 1 and (shape.num_heads % split or shape.num_kv_heads % split):
        heads = f"{shape.num_heads} heads and {shape.num_kv_heads} key-value heads"
        found.append(f"tensor_parallel: {split} does not divide the {heads} of {shape.name}")
    if setup.num_gpus > setup.gpus_per_node and setup.num_gpus % setup.gpus_per_node:
        found.append(f"num_gpus: {setup.num_gpus} is no multiple of the {setup.gpus_per_node} GPUs of a node")
    if shape.max_positions and setup.sequence_length > shape.max_positions and shape.learned_positions:
        found.append(f"sequence_length: {shape.name} has positions for {shape.max_positions:,} tokens")
    if setup.offload == "optimizer" and setup.sharding == "none" and setup.num_gpus > 1:
        found.append("offload: several GPUs need sharding fsdp2, zero1, zero2 or zero3")
    elif setup.offload == "parameters" and setup.sharding not in _SHARDED_WEIGHTS:
        found.append(f"offload: parameters can rest in the host with fsdp2 or zero3, not with {setup.sharding}")
    if setup.method == "qlora" and setup.precision == "fp32":
        found.append("precision: qlora computes in bf16")
    if setup.method == "qlora" and setup.sharding in _SHARDED_WEIGHTS:
        found.append(f"sharding: weights in 4 bits are not divided by {setup.sharding}; use none, zero1 or zero2")
    if not 0 <= setup.padding_share < 1:
        found.append(f"padding_share: {setup.padding_share} must be at least 0 and below 1")
    return found
