"""All setups of a space, judged: which fit, which is the cheapest, the fastest, the one on the smallest hardware, and
which ones no other beats.

Memory does not depend on the hardware, so it is computed once per setup; time is computed for what fits only. Some ten
thousand setups take a second or two (benchmarks/plan_search.py). Why the others fail says `rejections`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import cost, memory, pareto
from michelangelo.llm.planner import plan as planning
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.memory import MemoryEstimate
from michelangelo.llm.planner.plan import Assumptions, Plan
from michelangelo.llm.training_setup import (
    Attention,
    Checkpointing,
    CrossEntropy,
    Method,
    Offload,
    Optimizer,
    Sharding,
    TrainingSetup,
)

__all__ = ["Candidate", "Found", "Rejected", "Space", "merged", "run", "setups"]

_ONE_PERCENT: Final = math.log(1.01)
_QUARTER_GIB: Final = 1 << 28
_SHARDED: Final[tuple[Sharding, ...]] = ("zero1", "zero2", "zero3", "fsdp2")
_SHARDED_WEIGHTS: Final = ("zero3", "fsdp2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What is tried: the product of all tuples, but what makes no sense. What is no tuple here stays as in `base`."""

    base: TrainingSetup = field(default_factory=TrainingSetup)
    methods: tuple[Method, ...] = ("full", "lora", "qlora")
    shardings: tuple[Sharding, ...] = ("none", "zero1", "zero2", "zero3", "fsdp2")
    offloads: tuple[Offload, ...] = ("none", "optimizer", "parameters")
    checkpointings: tuple[Checkpointing, ...] = ("none", "selective", "full")
    micro_batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    gpus: tuple[int, ...] = (1, 2, 4, 8)
    attentions: tuple[Attention, ...] = ("flash",)
    cross_entropies: tuple[CrossEntropy, ...] = ("chunked", "plain")
    optimizers: tuple[Optimizer, ...] = ("adamw", "adamw_8bit")
    compiled: tuple[bool, ...] = (True, False)
    tokens_per_step: int = 0
    """Of all GPUs: gradient_accumulation is what comes nearest from above; 0: as in `base`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A setup that fits. Hours and money (0 where no price is known) of all tokens; bytes per GPU."""

    setup: TrainingSetup
    hardware: Hardware
    peak_bytes: int
    host_bytes: int
    hours: float
    money: float
    tokens_per_second: float
    mfu: float

    @property
    def size(self) -> tuple[int, int, float]:
        """Of the hardware: GPUs, then the memory of each, then its peak."""
        return (self.setup.num_gpus, self.hardware.memory_bytes, self.hardware.training_peak(self.setup.precision))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A setup that does not fit."""

    setup: TrainingSetup
    hardware: Hardware
    memory: MemoryEstimate
    high_bytes: int
    """Upper end of the interval of the peak: what is compared with the GPU's memory."""
    host_missing: int
    """Bytes that the host lacks; 0 or less: none."""

    @property
    def missing(self) -> int:
        """Bytes that the GPU lacks; 0 or less: none."""
        return self.high_bytes - self.hardware.memory_bytes


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search; None and empty where nothing fits."""

    shape: ModelShape
    assumptions: Assumptions
    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    impossible: tuple[tuple[str, int], ...]
    """Setups that cannot be whatever memory there is: why, and how many."""

    @property
    def num_tried(self) -> int:
        return len(self.candidates) + len(self.rejected) + sum(count for _, count in self.impossible)

    @property
    def cheapest(self) -> Candidate | None:
        """By money, then hours; by GPU hours where no price is known."""
        return min(self.candidates, key=_by_money, default=None)

    @property
    def fastest(self) -> Candidate | None:
        """By hours, then money."""
        return min(self.candidates, key=lambda c: (c.hours, _by_money(c), c.peak_bytes), default=None)

    @property
    def smallest(self) -> Candidate | None:
        """On the fewest GPUs, of those on the ones with the least memory, of those the cheapest."""
        return min(self.candidates, key=lambda c: (c.size, _by_money(c)), default=None)

    def front(self) -> list[Candidate]:
        """Those that no other beats in cost, time, GPUs and memory at once, the cheapest first. Differences that no
        plan can tell (1 % of cost and time, a quarter of a GiB) are none."""
        ordered = sorted(self.candidates, key=_figures)
        return pareto.front(ordered, key=lambda candidate: _coarse(*_figures(candidate)))

    def plan(self, candidate: Candidate) -> Plan:
        """In full."""
        return planning.make(self.shape, candidate.setup, candidate.hardware, self.assumptions)


def run(shape: ModelShape, space: Space, hardware: Sequence[Hardware], assumptions: Assumptions) -> Found:
    """`hardware`: what may be rented, each with every number of GPUs of the space. Raises ModelError for unknown
    lora_targets."""
    candidates: list[Candidate] = []
    rejected: list[Rejected] = []
    impossible: dict[str, int] = {}
    needed: dict[TrainingSetup, MemoryEstimate] = {}
    for one in hardware:
        for setup in setups(space, gpus_per_node=one.gpus_per_node):
            if reasons := planning.problems(shape, setup, one):
                impossible[reasons[0]] = impossible.get(reasons[0], 0) + 1
                continue
            if setup not in needed:
                needed[setup] = memory.estimate(shape, setup)
            judged = _judge(shape, setup, one, needed[setup], assumptions)
            (candidates if isinstance(judged, Candidate) else rejected).append(judged)  # type: ignore[arg-type]
    return Found(shape, assumptions, tuple(candidates), tuple(rejected), tuple(impossible.items()))


def merged(parts: Sequence[Found]) -> Found:
    """Searches of one model under the same assumptions, as one. Raises ValueError for none."""
    if not parts:
        raise ValueError("nothing was searched")
    impossible: dict[str, int] = {}
    for part in parts:
        for reason, count in part.impossible:
            impossible[reason] = impossible.get(reason, 0) + count
    return Found(
        parts[0].shape,
        parts[0].assumptions,
        tuple(one for part in parts for one in part.candidates),
        tuple(one for part in parts for one in part.rejected),
        tuple(impossible.items()),
    )


def setups(space: Space, *, gpus_per_node: int = 8) -> Iterator[TrainingSetup]:
    """All of the space that make sense, each once."""
    ways = [
        (method, gpus, sharding, offload)
        for method, gpus, sharding, offload in itertools.product(
            space.methods, space.gpus, space.shardings, space.offloads
        )
        if _makes_sense(space, method, gpus, sharding, offload)
    ]
    rest = list(
        itertools.product(
            space.checkpointings,
            space.micro_batches,
            space.attentions,
            space.cross_entropies,
            space.optimizers,
            space.compiled,
        )
    )
    for method, gpus, sharding, offload in ways:
        for checkpointing, micro_batch, attention, cross_entropy, optimizer, compiled in rest:
            setup = dataclasses.replace(
                space.base,
                method=method,
                num_gpus=gpus,
                sharding=sharding,
                offload=offload,
                checkpointing=checkpointing,
                micro_batch=micro_batch,
                attention=attention,
                cross_entropy=cross_entropy,
                optimizer=optimizer,
                compiled=compiled,
                gpus_per_node=gpus_per_node,
            )
            yield _accumulated(setup, space.tokens_per_step)


def _makes_sense(space: Space, method: Method, gpus: int, sharding: Sharding, offload: Offload) -> bool:
    if gpus % space.base.tensor_parallel:
        return False
    replicas = gpus // space.base.tensor_parallel
    if offload == "parameters" and sharding not in _SHARDED_WEIGHTS:
        return False
    if offload != "none" and sharding == "none":
        return False
    if method == "qlora" and (sharding in _SHARDED_WEIGHTS or offload != "none"):
        return False  # weights in 4 bits are whole on each GPU; what is trained is small
    if replicas == 1 and sharding in _SHARDED:
        # One replica divides nothing; sharding is how offload is asked for.
        return offload != "none" and sharding == "fsdp2"
    return True


def _accumulated(setup: TrainingSetup, tokens_per_step: int) -> TrainingSetup:
    if not tokens_per_step:
        return setup
    once = setup.micro_batch * setup.sequence_length * setup.data_parallel
    return dataclasses.replace(setup, gradient_accumulation=max(1, -(-tokens_per_step // once)))


def _judge(
    shape: ModelShape, setup: TrainingSetup, hardware: Hardware, needed: MemoryEstimate, assumptions: Assumptions
) -> Candidate | Rejected:
    factors = assumptions.calibration.factors(hardware.name, setup)
    peak, _, high = planning.calibrated_memory(needed, factors)
    host_missing = needed.host_bytes - planning.host_capacity(hardware)
    if high > hardware.memory_bytes or host_missing > 0:
        return Rejected(setup, hardware, needed, high, host_missing)
    speed = planning.calibrated_speed(shape, setup, hardware, assumptions, factors)
    share = 1.0 - (0.0 if setup.packing else setup.padding_share)
    hours = assumptions.tokens / share / speed.tokens_per_second / 3600
    price, paid = cost.offer_for(assumptions.prices, hardware.name, setup.num_gpus, provider=assumptions.provider)
    money = hours * paid * price.per_gpu_hour if price else 0.0
    return Candidate(setup, hardware, peak, needed.host_bytes, hours, money, speed.tokens_per_second, speed.mfu)


def _figures(candidate: Candidate) -> tuple[float, float, float, int, int]:
    return (*_by_money(candidate)[:2], candidate.hours, candidate.setup.num_gpus, candidate.peak_bytes)


def _coarse(unpriced: float, money: float, hours: float, gpus: int, peak: int) -> tuple[float, ...]:
    return (
        unpriced,
        round(math.log(money) / _ONE_PERCENT),
        round(math.log(hours) / _ONE_PERCENT),
        gpus,
        peak // _QUARTER_GIB,
    )


def _by_money(candidate: Candidate) -> tuple[float, float, float]:
    """What has no price comes after what has one, by its GPU hours."""
    if candidate.money:
        return (0.0, candidate.money, candidate.hours)
    return (1.0, candidate.hours * candidate.setup.num_gpus, candidate.hours)
