"""The most that tensors hold on a CPU, counted operation by operation: what max_memory_allocated says on a GPU.

Every storage that an operation makes is counted once, from then until nothing refers to it, backward pass and optimizer
included. What a kernel takes and gives back within itself is not seen. The process's resident size would not do: it
contains libraries, and what the allocator of the C library keeps.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["PeakOfTensors"]


class PeakOfTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context: tensors made within it are counted, those made before it are not. For one thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        """Now."""
        self.peak_bytes = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def reset(self) -> None:
        """The peak is from now on."""
        self.peak_bytes = self.bytes

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        held = storage.nbytes()
        self.bytes += held
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        weakref.finalize(storage, self._free, held)

    def _free(self, held: int) -> None:
        self.bytes -= held
