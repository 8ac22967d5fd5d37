"""Plain data parallel: each process holds everything, and gradients are summed while the backward pass still runs.

Not torch's DistributedDataParallel: the loss goes through the model itself, not through a wrapper around it, and its
buckets hold a second copy of all gradients. Here a large gradient is summed where it is; small ones go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import nn

from michelangelo.llm.finetune import optimizers, strategy
from michelangelo.llm.finetune.strategy import Accept, MakeOptimizer

__all__ = ["Replicated"]

_BUCKET_ELEMENTS: Final = 8 << 20
"""A gradient of as many elements is summed by itself; smaller ones are put together up to this size."""


class Replicated:
    """The group of all processes is there before one is made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = self.data_rank = dist.get_rank()
        self.world_size = self.data_parallel = dist.get_world_size()
        self._model: nn.Module | None = None
        self._optimizer: optimizers.NamedOptimizer | None = None
        self._sums_now = False
        self._summed: set[int] = set()
        self._bucket: list[torch.Tensor] = []
        self._running: list[tuple[dist.Work | None, torch.Tensor, Sequence[torch.Tensor]]] = []

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> optimizers.NamedOptimizer:
        """All begin with the trained parameters of the first process."""
        self._model = model.to(self.device)
        with torch.no_grad():
            for _, parameter in strategy.trained_parameters(model):
                dist.broadcast(parameter, src=0)
        self._optimizer = make_optimizer(strategy.trained_parameters(model))
        # Behind the optimizer's own hooks, which may have moved the gradient to where several passes are summed up.
        for _, parameter in strategy.trained_parameters(model):
            parameter.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]
        return self._optimizer

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        self._sums_now = is_last
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, max_grad_norm: float, accept: Accept = optimizers.finite) -> float:
        optimizer = self._prepared()[1]
        for gradient in optimizer.gradients():
            if id(gradient) not in self._summed:
                self._put(gradient)
        self._finish()
        return optimizer.clip_and_step(max_grad_norm, accept)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    def model_state(self) -> dict[str, Any]:
        return strategy.trained_state(self._prepared()[0])

    def optimizer_state(self) -> dict[str, Any]:
        return self._prepared()[1].named_state()

    def load_state(self, model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
        module, stepper = self._prepared()
        strategy.load_trained_state(module, model)
        stepper.load_named_state(optimizer)

    def barrier(self) -> None:
        dist.barrier()

    def close(self) -> None:
        """The group of processes is its maker's to end."""

    def _take(self, parameter: torch.Tensor) -> None:
        if self._sums_now and parameter.grad is not None:
            self._put(parameter.grad)

    def _put(self, gradient: torch.Tensor) -> None:
        """Every process puts the same gradients in the same order: that of one backward pass, or of the parameters."""
        self._summed.add(id(gradient))
        if gradient.numel() >= _BUCKET_ELEMENTS:
            self._running.append((dist.all_reduce(gradient, async_op=True), gradient, ()))
            return
        if self._bucket and self._bucket[0].dtype != gradient.dtype:
            self._send()
        self._bucket.append(gradient)
        if sum(one.numel() for one in self._bucket) >= _BUCKET_ELEMENTS:
            self._send()

    def _send(self) -> None:
        if not self._bucket:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in self._bucket])
        self._running.append((dist.all_reduce(flat, async_op=True), flat, self._bucket))
        self._bucket = []

    def _finish(self) -> None:
        self._send()
        for work, flat, parts in self._running:
            if work is not None:
                work.wait()
            for part, summed in zip(
                parts, torch.split(flat, [part.numel() for part in parts]) if parts else (), strict=True
            ):
                part.copy_(summed.view_as(part))
        self._running = []
        self._summed.clear()

    def _prepared(self) -> tuple[nn.Module, optimizers.NamedOptimizer]:
        if self._model is None or self._optimizer is None:
            raise RuntimeError("prepare() comes first")
        return self._model, self._optimizer
