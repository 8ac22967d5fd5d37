"""An optimizer whose states and step are in the host's memory: what a GPU keeps of what is trained is its weights.

Gradients leave the GPU as the backward pass makes them, beside its computation, and are freed there; the host steps on
fp32 copies, and the new weights go back. AdamW's 12 bytes a parameter (copy and two moments) and the gradients are then
the host's (ZeRO-Offload, arXiv 2101.06840). Where a parameter is sharded, each process steps on its own part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from michelangelo import errors
from michelangelo.llm.finetune import optimizers
from michelangelo.llm.finetune.config import OptimizerConfig

__all__ = ["HostOptimizer"]


class HostOptimizer(optimizers.NamedOptimizer):
    """AdamW or SGD over fp32 copies in page-locked memory. Raises SettingsError for optimizers that need a GPU."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> None:
        if config.name not in ("adamw", "sgd"):
            raise errors.SettingsError(
                f"optimizer.name {config.name}: with parallel.offload the host steps, which knows adamw and sgd"
            )
        self._transfers: torch.cuda.Stream | None = None
        super().__init__(named, config, copies=True, accumulate=True)

    def gradients(self) -> list[torch.Tensor]:
        """Of this process's parts, float32, on the host."""
        for index in range(len(self.parameters)):
            self._settle(index)
        return [stepped.grad for stepped in self._stepped if stepped.grad is not None]

    def zero_grad(self) -> None:
        for index, (parameter, stepped) in enumerate(zip(self.parameters, self._stepped, strict=True)):
            self._settle(index)
            parameter.grad = None
            stepped.grad = None

    def named_state(self) -> dict[str, Any]:
        """As the base has it: parts of sharded parameters are DTensors."""
        state = super().named_state()
        layouts = {
            name: parameter
            for name, parameter in zip(self.names, self.parameters, strict=True)
            if isinstance(parameter, DTensor)
        }
        for key, value in state.items():
            whole = layouts.get(key.partition(".")[2])
            if whole is not None and value.dim() and not isinstance(value, DTensor):
                state[key] = _as_part(value, whole)
        return state

    def _make_stepped(self) -> list[torch.Tensor]:
        locals_ = [_local(parameter.detach()) for parameter in self.parameters]
        on_gpu = locals_[0].is_cuda
        self._device = locals_[0].device
        if on_gpu:
            self._transfers = torch.cuda.Stream(self._device)
        stepped: list[torch.Tensor] = [_host_like(part, torch.float32, pinned=on_gpu).copy_(part) for part in locals_]
        self._sent = [_host_like(part, part.dtype, pinned=on_gpu) for part in locals_]
        self._sums = [torch.empty_like(part, dtype=torch.float32) for part in stepped]
        self._events: list[torch.cuda.Event | None] = [None] * len(locals_)
        self._waiting = [False] * len(locals_)
        return stepped

    def _listen(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.register_post_accumulate_grad_hook(self._taker(index))  # type: ignore[no-untyped-call]

    def _taker(self, index: int) -> Any:
        def take(parameter: torch.Tensor) -> None:
            if parameter.grad is None:
                return
            self._settle(index)
            gradient = _local(parameter.grad.detach())
            if self._transfers is None:
                self._sent[index].copy_(gradient)
            else:
                self._transfers.wait_stream(torch.cuda.current_stream(self._device))
                with torch.cuda.stream(self._transfers):
                    self._sent[index].copy_(gradient, non_blocking=True)
                    event = torch.cuda.Event()
                    event.record(self._transfers)
                gradient.record_stream(self._transfers)
                self._events[index] = event
            self._waiting[index] = True
            parameter.grad = None

        return take

    def _settle(self, index: int) -> None:
        """Adds a gradient that has arrived to the sum of this step."""
        if not self._waiting[index]:
            return
        event = self._events[index]
        if event is not None:
            event.synchronize()
        stepped, total = self._stepped[index], self._sums[index]
        if stepped.grad is None:
            stepped.grad = total.copy_(self._sent[index])
        else:
            total.add_(self._sent[index])
        self._waiting[index] = False

    def _norm(self, gradients: list[torch.Tensor]) -> float:
        squared = float(torch.nn.utils.get_total_norm(gradients)) ** 2
        sharded = next((parameter for parameter in self.parameters if isinstance(parameter, DTensor)), None)
        if sharded is None:
            return math.sqrt(squared)
        summed = torch.tensor(squared, dtype=torch.float64, device=self._device)
        dist.all_reduce(summed, group=sharded.device_mesh.get_group(sharded.device_mesh.ndim - 1))
        return math.sqrt(float(summed))

    def _step(self) -> None:
        self.inner.step()
        with torch.no_grad():
            for parameter, stepped, sent in zip(self.parameters, self._stepped, self._sent, strict=True):
                if self._transfers is None:
                    _local(parameter).copy_(stepped)
                else:
                    sent.copy_(stepped)
                    _local(parameter).copy_(sent, non_blocking=True)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _host_like(part: torch.Tensor, dtype: torch.dtype, *, pinned: bool) -> torch.Tensor:
    return torch.empty(part.shape, dtype=dtype, pin_memory=pinned)


def _as_part(local: torch.Tensor, whole: DTensor) -> DTensor:
    """A part on the host of what is laid out as `whole`; `DTensor.from_local` would move it to the mesh's device."""
    return DTensor(local, whole._spec, requires_grad=False)  # type: ignore[call-arg,misc]
