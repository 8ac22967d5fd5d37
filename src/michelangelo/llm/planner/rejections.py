"""Why setups fail, in few words: grouped by what is short and by the part that is largest, with the nearest to fitting
of each group and the smallest change that would make it fit.

It judges what a search rejected, and tries single changes of its own with the planner's memory model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import memory
from michelangelo.llm.planner import plan as planning
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.plan import Assumptions
from michelangelo.llm.planner.search import Rejected
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["CHANGES", "Group", "cures", "describe", "grouped"]

_GIB: Final = 1 << 30
CHANGES: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    ("attention=flash", {"attention": "flash"}),
    ("cross_entropy=chunked", {"cross_entropy": "chunked"}),
    ("checkpointing=selective", {"checkpointing": "selective"}),
    ("checkpointing=full", {"checkpointing": "full"}),
    ("micro_batch=1", {"micro_batch": 1}),
    ("optimizer=adamw_8bit", {"optimizer": "adamw_8bit"}),
    ("sharding=fsdp2", {"sharding": "fsdp2"}),
    ("offload=optimizer", {"offload": "optimizer", "sharding": "fsdp2"}),
    ("offload=parameters", {"offload": "parameters", "sharding": "fsdp2"}),
    ("precision=bf16", {"precision": "bf16"}),
    ("method=lora", {"method": "lora"}),
    ("method=qlora", {"method": "qlora", "sharding": "none", "offload": "none"}),
)
"""Single changes, those that cost least first: in speed, then in what is learned."""
_FAMILIES: Final = {
    "activations_attention": "activations",
    "activations_mlp": "activations",
    "activations_norms": "activations",
    "activations_checkpoints": "activations",
    "activations_recomputed": "activations",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Setups that fail alike on one kind of hardware."""

    hardware: str
    place: str
    """`GPU` or `host`."""
    component: str
    """The largest part of what is needed there, activations of all kinds together."""
    count: int
    nearest: Rejected
    cures: tuple[str, ...]
    """Changes of the nearest one, each of which alone would make it fit."""


def grouped(shape: ModelShape, rejected: Sequence[Rejected], assumptions: Assumptions) -> list[Group]:
    """The largest groups first."""
    groups: dict[tuple[str, str, str], list[Rejected]] = {}
    for one in rejected:
        place = "GPU" if one.missing > 0 else "host"
        groups.setdefault((one.hardware.name, place, _largest(one, place)), []).append(one)
    made = []
    for (hardware, place, component), members in groups.items():
        nearest = min(members, key=lambda one: one.missing if place == "GPU" else one.host_missing)
        healing = tuple(cures(shape, nearest.setup, nearest.hardware, assumptions))
        made.append(Group(hardware, place, component, len(members), nearest, healing))
    return sorted(made, key=lambda group: -group.count)


def cures(shape: ModelShape, setup: TrainingSetup, hardware: Hardware, assumptions: Assumptions) -> list[str]:
    """Single changes after which it fits, of CHANGES and of more GPUs, those that cost least first."""
    found = [name for name, change in CHANGES if _fits(shape, setup, change, hardware, assumptions)]
    if setup.sharding != "none":
        for gpus in (2, 4, 8, 16, 32, 64, 128):
            if gpus > setup.num_gpus and _fits(shape, setup, {"num_gpus": gpus}, hardware, assumptions):
                found.append(f"num_gpus={gpus}")
                break
    return found


def describe(group: Group) -> str:
    """One sentence: what is needed of what there is, of which part, and what would help."""
    one = group.nearest
    if group.place == "GPU":
        needed, there = one.high_bytes, one.hardware.memory_bytes
    else:
        needed, there = one.memory.host_bytes, planning.host_capacity(one.hardware)
    parts = _parts(one, group.place)
    named = f"{group.component} {parts[group.component] / _GIB:,.1f}"
    help_ = f"; would fit with {' or '.join(group.cures[:3])}" if group.cures else "; no single change makes it fit"
    return f"needs {needed / _GIB:,.1f} GiB of {there / _GIB:,.1f} on the {group.place}: {named}{help_}"


def _fits(
    shape: ModelShape, setup: TrainingSetup, change: Mapping[str, Any], hardware: Hardware, assumptions: Assumptions
) -> bool:
    changed = setup.replace(**change)
    if changed == setup or planning.problems(shape, changed, hardware):
        return False
    factors = assumptions.calibration.factors(hardware.name, changed)
    needed = memory.estimate(shape, changed)
    _, _, high = planning.calibrated_memory(needed, factors)
    return high <= hardware.memory_bytes and needed.host_bytes <= planning.host_capacity(hardware)


def _parts(one: Rejected, place: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for part in one.memory.gpu if place == "GPU" else one.memory.host:
        name = _FAMILIES.get(part.name, part.name)
        sums[name] = sums.get(name, 0) + part.bytes
    return sums


def _largest(one: Rejected, place: str) -> str:
    parts = _parts(one, place)
    return max(parts, key=lambda name: parts[name])
