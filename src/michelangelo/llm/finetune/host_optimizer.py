"""An optimizer whose states and step are in the host's memory: what a GPU keeps of what is trained is its weights.

Gradients leave the GPU as the backward pass makes them, beside its computation, and are freed there; the host steps on
fp32 copies, piece by piece, and a piece's new weights go back while the next one is computed. AdamW's 12 bytes a
parameter (copy and two moments) and the gradients are then the host's (ZeRO-Offload, arXiv 2101.06840). Where a
parameter is sharded, each process steps on its own part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any, Final

import torch
from torch import nn

from michelangelo import errors
from michelangelo.llm.finetune import optimizers
from michelangelo.llm.finetune.config import OptimizerConfig
from michelangelo.llm.finetune.parallel import shard_optimizer

__all__ = ["HostOptimizer"]

_PIECE_ELEMENTS: Final = 32 << 20
"""Stepped together: small enough that weights go back early, large enough for all cores."""
_CLIP_EPSILON: Final = 1e-6
"""As torch.nn.utils.clip_grad_norm_ has it."""
_HOST: Final = torch.device("cpu")


class HostOptimizer(shard_optimizer.ShardOptimizer):
    """AdamW or SGD over fp32 copies in page-locked memory. Raises SettingsError for optimizers that need a GPU.

    For a parameter in bf16 the host holds 18 bytes: copy (4), moments (8), the sum of gradients (4), and the room
    through which gradients come and weights go (2).
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> None:
        if config.name not in ("adamw", "sgd"):
            raise errors.SettingsError(
                f"optimizer.name {config.name}: with parallel.offload the host steps, which knows adamw and sgd"
            )
        self._adders = futures.ThreadPoolExecutor(1, "gradients")
        super().__init__(named, config, copies=True, accumulate=True)
        if isinstance(self.inner, torch.optim.AdamW):
            # Now, so that a checkpoint is loaded into them in place, and not by way of the GPU.
            for stepped in self._stepped:
                self.inner.state[stepped] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(stepped),
                    "exp_avg_sq": torch.zeros_like(stepped),
                }

    def gradients(self) -> list[torch.Tensor]:
        """Of this process's parts, float32, on the host."""
        self._settle()
        return super().gradients()

    def clip_and_step(self, max_grad_norm: float, accept: optimizers.Accept) -> float:
        value = self._norm(self.gradients())
        if accept(value):
            self._step_in_pieces(max_grad_norm / (value + _CLIP_EPSILON) if 0 < max_grad_norm < value else 1.0)
        self.zero_grad()
        return value

    def zero_grad(self) -> None:
        self._settle()
        super().zero_grad()

    def named_state(self) -> dict[str, Any]:
        """Without copies of weights in fp32, which equal the weights."""
        whole = {f"copy.{n}" for n, one in zip(self.names, self.parameters, strict=True) if one.dtype == torch.float32}
        return {key: value for key, value in super().named_state().items() if key not in whole}

    def load_named_state(self, state: Mapping[str, Any]) -> None:
        """The weights have to be loaded before."""
        super().load_named_state({key: shard_optimizer.local_part(value).to(_HOST) for key, value in state.items()})
        with torch.no_grad():
            for name, parameter, copy in zip(self.names, self.parameters, self._stepped, strict=True):
                if f"copy.{name}" not in state:
                    copy.copy_(shard_optimizer.local_part(parameter.detach()))

    def _make_stepped(self) -> list[torch.Tensor]:
        parts = [shard_optimizer.local_part(parameter.detach()) for parameter in self.parameters]
        self._link = _Link(parts[0].device)
        self._room = [self._link.room(part, part.dtype) for part in parts]
        self._sums = [torch.empty(part.shape, dtype=torch.float32) for part in parts]
        self._adding: list[futures.Future[None] | None] = [None] * len(parts)
        return [self._link.room(part, torch.float32).copy_(part) for part in parts]

    def _listen(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.register_post_accumulate_grad_hook(self._taker(index))  # type: ignore[no-untyped-call]

    def _taker(self, index: int) -> Callable[[torch.Tensor], None]:
        def take(parameter: torch.Tensor) -> None:
            if parameter.grad is None:
                return
            before = self._adding[index]
            if before is not None:
                before.result()
            gradient = shard_optimizer.local_part(parameter.grad.detach())
            wait = self._link.fetch(gradient, self._room[index])
            parameter.grad = None
            self._adding[index] = self._adders.submit(self._add, index, wait)

        return take

    def _add(self, index: int, wait: Callable[[], None]) -> None:
        """A gradient that arrives, to the sum of this step; beside the backward pass."""
        wait()
        stepped, total = self._stepped[index], self._sums[index]
        if stepped.grad is None:
            stepped.grad = total.copy_(self._room[index])
        else:
            total.add_(self._room[index])

    def _settle(self) -> None:
        for index, adding in enumerate(self._adding):
            if adding is not None:
                adding.result()
                self._adding[index] = None

    @torch.no_grad()
    def _step_in_pieces(self, factor: float) -> None:
        gradients = [stepped.grad for stepped in self._stepped]
        for stepped in self._stepped:
            stepped.grad = None
        self._link.begin()
        for piece in self._pieces():
            for index in piece:
                gradient = gradients[index]
                if gradient is not None:
                    self._stepped[index].grad = gradient.mul_(factor) if factor != 1.0 else gradient
            self.inner.step()  # of those that have a gradient now
            for index in piece:
                stepped = self._stepped[index]
                stepped.grad = None
                target = shard_optimizer.local_part(self.parameters[index].detach())
                self._link.send(stepped, self._room[index], target)
        self._link.end()

    def _pieces(self) -> Iterator[list[int]]:
        piece: list[int] = []
        size = 0
        for index, stepped in enumerate(self._stepped):
            if piece and size + stepped.numel() > _PIECE_ELEMENTS:
                yield piece
                piece, size = [], 0
            piece.append(index)
            size += stepped.numel()
        if piece:
            yield piece


class _Link:
    """Copies between a GPU and the host on a stream of their own. Between parts of the host there is nothing to do but
    to copy."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def room(self, part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """On the host, page-locked beside a GPU."""
        return torch.empty(part.shape, dtype=dtype, pin_memory=self._stream is not None)

    def fetch(self, gradient: torch.Tensor, room: torch.Tensor) -> Callable[[], None]:
        """To the host, behind what the device computes now; what is returned waits until it is there."""
        if self._stream is None:
            room.copy_(gradient)
            return _nothing
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            room.copy_(gradient, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._stream)
        gradient.record_stream(self._stream)
        return arrived.synchronize

    def begin(self) -> None:
        """What is sent from now on overwrites weights, so it comes after what the device still computes with them."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def send(self, stepped: torch.Tensor, room: torch.Tensor, target: torch.Tensor) -> None:
        """Rounded to the target's dtype, to the device."""
        if self._stream is None:
            target.copy_(stepped)
            return
        room.copy_(stepped)
        with torch.cuda.stream(self._stream):
            target.copy_(room, non_blocking=True)

    def end(self) -> None:
        """What the device computes from now on is with what was sent."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)


def _nothing() -> None:
    return
