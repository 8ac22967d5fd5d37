"""The optimizer over this process's parts of the parameters, as plain tensors.

Sharded parameters are DTensors, on one mesh or on several (tensor parallel). The step itself needs nothing of the other
processes, so it runs on the local parts: every optimizer of torch works on them. What does need the others, the norm,
is computed here; states are given to checkpoints as DTensors again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

from michelangelo.llm.finetune import optimizers
from michelangelo.llm.finetune.config import OptimizerConfig
from michelangelo.llm.training_setup import Precision

__all__ = ["OptimizerTerms", "ShardOptimizer", "Tie", "build", "laid_out_as", "local_part", "total_norm"]


@dataclass(frozen=True, slots=True)
class OptimizerTerms:
    """What an optimizer is made by."""

    config: OptimizerConfig
    precision: Precision
    accumulates: bool
    """Gradients of several passes meet before a step."""


@dataclass(frozen=True, slots=True)
class Tie:
    """Parameters whose gradients are parts of a sum over `group`: whole on each of its processes, each of which used
    them for another part of a layer."""

    names: frozenset[str]
    group: dist.ProcessGroup


class ShardOptimizer(optimizers.NamedOptimizer):
    """As NamedOptimizer, over the local parts of parameters that may be DTensors."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        config: OptimizerConfig,
        *,
        copies: bool,
        accumulate: bool,
        tie: Tie | None = None,
    ) -> None:
        self._tie = tie
        super().__init__(named, config, copies=copies, accumulate=accumulate)

    def gradients(self) -> list[torch.Tensor]:
        """The local parts, in the memory where the next step finds them."""
        return [gradient for gradient in self._parts() if gradient is not None]

    def clip_and_step(self, max_grad_norm: float, accept: optimizers.Accept) -> float:
        if self._tie is not None:
            for name, gradient in zip(self.names, self._parts(), strict=True):
                if name in self._tie.names and gradient is not None:
                    dist.all_reduce(gradient, group=self._tie.group)
        return super().clip_and_step(max_grad_norm, accept)

    def named_state(self) -> dict[str, Any]:
        by_name = dict(zip(self.names, self.parameters, strict=True))
        state = super().named_state()
        return {key: laid_out_as(by_name[key.partition(".")[2]], value) for key, value in state.items()}

    def load_named_state(self, state: Mapping[str, Any]) -> None:
        super().load_named_state({key: local_part(value) for key, value in state.items()})

    def _make_stepped(self) -> list[torch.Tensor]:
        parts = [local_part(parameter.detach()) for parameter in self.parameters]
        return [part.to(torch.float32, copy=True) for part in parts] if self._copies else parts

    def _listen(self) -> None:
        if self._accumulates:
            for parameter, copy in zip(self.parameters, self._stepped, strict=True):
                parameter.register_post_accumulate_grad_hook(_adder(copy))  # type: ignore[no-untyped-call]

    def _parts(self) -> list[torch.Tensor | None]:
        if self._accumulates:
            return [copy.grad for copy in self._stepped]
        return [None if one.grad is None else local_part(one.grad) for one in self.parameters]

    def _norm(self, gradients: list[torch.Tensor]) -> float:
        return total_norm(zip(self.parameters, self._parts(), strict=True))

    def _step(self) -> None:
        if not self._accumulates:
            for parameter, stepped, gradient in zip(self.parameters, self._stepped, self._parts(), strict=True):
                stepped.grad = None if gradient is None else gradient.to(stepped.dtype)
                parameter.grad = None
        self.inner.step()
        if self._copies:
            with torch.no_grad():
                torch._foreach_copy_([local_part(parameter.detach()) for parameter in self.parameters], self._stepped)


def build(
    named: Iterable[tuple[str, nn.Parameter]], terms: OptimizerTerms, *, tie: Tie | None = None
) -> ShardOptimizer:
    pairs = list(named)
    copies = terms.precision == "bf16_mixed" and any(one.dtype != torch.float32 for _, one in pairs)
    return ShardOptimizer(pairs, terms.config, copies=copies, accumulate=terms.accumulates, tie=tie)


def total_norm(parts: Iterable[tuple[torch.Tensor, torch.Tensor | None]]) -> float:
    """Of the gradients of all processes: pairs of a parameter (perhaps a DTensor), and the local part of its gradient.

    The squares of parts that lie in the same way are summed here in fp32, and then over the dimensions of the mesh that
    divide them, so that what is whole on several processes counts once.
    """
    by_layout: dict[Any, tuple[DeviceMesh | None, tuple[int, ...], list[torch.Tensor]]] = {}
    for parameter, gradient in parts:
        mesh, dimensions = _divisions(parameter)
        known = by_layout.setdefault((mesh, dimensions), (mesh, dimensions, []))
        if gradient is not None:
            known[2].append(gradient)
    total = torch.zeros((), dtype=torch.float32)
    for mesh, dimensions, gradients in by_layout.values():
        norms = torch._foreach_norm([one for one in gradients if one.numel()], 2, dtype=torch.float32)
        squares = torch.stack(norms).square().sum() if norms else torch.zeros((), dtype=torch.float32)
        if mesh is not None:
            squares = squares.to(mesh.device_type)
            for dimension in dimensions:
                dist.all_reduce(squares, group=mesh.get_group(dimension))
        total = total.to(squares.device) + squares
    return float(total.sqrt())


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """In the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def laid_out_as(parameter: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """A state of a parameter's part as what it is a part of, in the same memory; one of another shape as it is."""
    if not isinstance(parameter, DTensor) or local.shape != parameter.to_local().shape:
        return local
    # Not by from_local, which would move what rests in the host's memory to the mesh's device.
    meta = TensorMeta(parameter.shape, parameter.stride(), local.dtype)
    spec = DTensorSpec(parameter.device_mesh, parameter.placements, tensor_meta=meta)
    made: torch.Tensor = DTensor(local.detach(), spec, requires_grad=False)  # type: ignore[no-untyped-call]
    return made


def _divisions(parameter: torch.Tensor) -> tuple[DeviceMesh | None, tuple[int, ...]]:
    """The mesh, and those of its dimensions along which the parameter is divided."""
    if not isinstance(parameter, DTensor):
        return None, ()
    divided = [i for i, placement in enumerate(parameter.placements) if not isinstance(placement, Replicate)]
    return parameter.device_mesh, tuple(divided)


def _adder(copy: torch.Tensor) -> Any:
    def add(parameter: torch.Tensor) -> None:
        if parameter.grad is None:
            return
        gradient = local_part(parameter.grad)
        copy.grad = gradient.to(torch.float32) if copy.grad is None else copy.grad.add_(gradient)
        parameter.grad = None

    return add
