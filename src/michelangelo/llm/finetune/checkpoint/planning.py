"""Which process writes which part of which tensor; and the parts as they are written. It writes nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil
import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import SavePlan, WriteItem

from michelangelo.llm.finetune.checkpoint import agreeing

__all__ = ["HostBuffers", "Part", "plan"]

_SHARE: Final = 0.8
"""Of the memory that is available, which copies may take."""


def _available() -> int:
    return int(psutil.virtual_memory().available)


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

    def __init__(self, *, num_sharing: int = 1, available: Callable[[], int] = _available) -> None:
        """`available`: bytes of the host, which `num_sharing` processes of a run take their copies from."""
        self._buffers: dict[str, torch.Tensor] = {}
        self._num_sharing = num_sharing
        self._available = available

    def has_room(self, parts: Sequence[Part]) -> bool:
        """Whether copies of these leave the host some memory: one that runs out of it kills the run."""
        kept = sum(_size_on_host(buffer) for buffer in self._buffers.values())
        needed = sum(_size_on_host(part.tensor) for part in parts) - kept
        return needed * self._num_sharing <= _SHARE * self._available()

    def copy(self, parts: Sequence[Part]) -> list[Part]:
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


def _size_on_host(tensor: torch.Tensor) -> int:
    """Page-locked memory is handed out in powers of two (torch's CachingHostAllocator)."""
    size = tensor.numel() * tensor.element_size()
    return 1 << (size - 1).bit_length() if size and (tensor.is_cuda or tensor.is_pinned()) else size
