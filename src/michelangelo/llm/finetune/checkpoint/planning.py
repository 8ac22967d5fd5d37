"""Which process writes which part of which tensor; and the parts as they are written. It writes nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import SavePlan, WriteItem

from michelangelo.llm.finetune.checkpoint import agreeing

__all__ = ["HostBuffers", "Part", "plan"]


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a tensor that this process writes."""

    tensor_name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    offsets: tuple[int, ...]
    tensor: torch.Tensor
    """The rectangle: the live one, or a copy on the host."""

    @property
    def key(self) -> str:
        """Unique among all processes."""
        if tuple(self.tensor.shape) == self.shape:
            return self.tensor_name
        return f"{self.tensor_name}@{','.join(map(str, self.offsets))}"


def plan(tensors: Mapping[str, Any], processes: agreeing.Processes) -> list[Part]:
    """Called by all processes together. What is the same in several of them is given to one, evenly."""
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), None, processes.is_first)
    gathered = processes.gather(planner.create_local_plan())
    global_plans: list[SavePlan] = planner.create_global_plan(gathered)[0] if processes.is_first else []
    mine = planner.finish_plan(processes.scatter(global_plans))
    return [_part(planner, item) for item in mine.items]


def _part(planner: DefaultSavePlanner, item: WriteItem) -> Part:
    tensor, data = planner.resolve_data(item), item.tensor_data
    if data is None or not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{item.index.fqn} is no tensor, so it belongs into `local` or `shared`")
    return Part(item.index.fqn, tuple(data.size), tuple(data.chunk.offsets), tensor.detach())


class HostBuffers:
    """Copies of tensors in the memory of the host (page-locked beside a GPU), kept for the next copy."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def copy(self, parts: list[Part]) -> list[Part]:
        """On return the originals may change."""
        kept, waits = {}, False
        for part in parts:
            buffer = self._buffers.pop(part.key, None)
            if buffer is None or buffer.shape != part.tensor.shape or buffer.dtype != part.tensor.dtype:
                buffer = torch.empty(part.tensor.shape, dtype=part.tensor.dtype, pin_memory=part.tensor.is_cuda)
            kept[part.key] = buffer.copy_(part.tensor, non_blocking=True)
            waits = waits or part.tensor.is_cuda
        self._buffers = kept
        if waits:
            torch.cuda.synchronize()
        return [Part(part.tensor_name, part.shape, part.offsets, kept[part.key]) for part in parts]
