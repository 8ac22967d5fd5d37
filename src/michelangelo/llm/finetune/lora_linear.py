"""The low-rank update of linear layers with as little memory traffic as there can be: y = x W^T + s (x A^T) B^T.

On a GPU the update costs few operations but reads and writes as much as the layer itself, so it is computed as one
operator that adds to the product in place, and layers with the same input (q, k, v; gate, up) go through it together:
their A's are one matrix, and the input is read once. Weights in NF4 are unpacked within the operator, forward and
backward, and never kept. To torch.compile it is opaque: no graph breaks, nothing is upcast.

It knows matrices only; which modules are adapted, and what they are called, is in `adapters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from torch.nn import functional as F

from michelangelo.llm.finetune import nf4

__all__ = ["OPERATOR", "Projection", "multiply", "project"]


class Projection:
    """One layer's matrices, as they are at the time of the call."""

    __slots__ = ("base", "bias", "down", "up")

    def __init__(
        self, base: Sequence[torch.Tensor], bias: torch.Tensor | None, down: torch.Tensor, up: torch.Tensor
    ) -> None:
        self.base = base
        """The frozen weight, [out, in], or its parts in NF4 (`nf4.PARTS`)."""
        self.bias = bias
        """[out], frozen."""
        self.down = down
        """A: [rank, in]."""
        self.up = up
        """B: [out, rank]."""


def project(x: torch.Tensor, layers: Sequence[Projection], scaling: float) -> list[torch.Tensor]:
    """x: [..., in] → [..., out] for each layer, all in the dtype of x. Gradients reach x, A and B.

    All layers have a bias, or none has.
    """
    outputs = _forward(
        x,
        [tensor for layer in layers for tensor in layer.base],
        [layer.bias for layer in layers if layer.bias is not None],
        [layer.down for layer in layers],
        [layer.up for layer in layers],
        scaling,
    )
    return cast(list[torch.Tensor], outputs[1:])


def multiply(x: torch.Tensor, base: Sequence[torch.Tensor], bias: torch.Tensor | None) -> torch.Tensor:
    """A frozen layer alone: x [..., in] → [..., out]. For parts in NF4 this keeps nothing but them."""
    outputs = _forward(x, list(base), [] if bias is None else [bias], [], [], 0.0)
    return cast(torch.Tensor, outputs[1])


@torch.library.custom_op("michelangelo::lora_project", mutates_args=())
def _forward(
    x: torch.Tensor,
    bases: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scaling: float,
) -> list[torch.Tensor]:
    """First x A^T of all layers side by side, [..., sum of ranks], which the way back needs; then the outputs."""
    flat = x.reshape(-1, x.shape[-1])
    low = flat @ _joined(downs).t() if downs else flat.new_empty((len(flat), 0))
    parts = torch.split(low, [up.shape[1] for up in ups], 1) if ups else ()
    outputs = [low.view(*x.shape[:-1], low.shape[1])]
    for i, base in enumerate(_grouped(bases, len(ups) or 1)):
        y = F.linear(flat, _dense(base, x.dtype), biases[i] if biases else None)
        if ups:
            y.addmm_(parts[i], ups[i].t(), alpha=scaling)
        outputs.append(y.view(*x.shape[:-1], y.shape[1]))
    return outputs


@_forward.register_fake
def _(
    x: torch.Tensor,
    bases: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scaling: float,
) -> list[torch.Tensor]:
    layers = _grouped(bases, len(ups) or 1)
    widths = [sum(down.shape[0] for down in downs), *(base[0].shape[0] for base in layers)]
    return [x.new_empty((*x.shape[:-1], width)) for width in widths]


@torch.library.custom_op("michelangelo::lora_project_backward", mutates_args=())
def _backward(
    gradients: Sequence[torch.Tensor],
    x: torch.Tensor,
    low: torch.Tensor,
    bases: Sequence[torch.Tensor],
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scaling: float,
    wants_input: bool,
) -> list[torch.Tensor]:
    """The gradient by x (empty where it is not wanted), by all A's in one matrix, and by each B."""
    flat_x, flat_low = x.reshape(-1, x.shape[-1]), low.reshape(-1, low.shape[-1])
    flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
    layers = _grouped(bases, len(ups) or 1)
    low_gradient = torch.empty_like(flat_low)
    by_ups = []
    start = 0
    for gradient, up in zip(flat, ups, strict=False):
        part = slice(start, start + up.shape[1])
        torch.mm(gradient, up, out=low_gradient[:, part])
        by_ups.append((gradient.t() @ flat_low[:, part]).mul_(scaling))
        start = part.stop
    low_gradient.mul_(scaling)
    by_downs = low_gradient.t() @ flat_x
    if not wants_input:
        return [x.new_empty(0), by_downs, *by_ups]
    by_x = flat[0] @ _dense(layers[0], x.dtype)
    for gradient, base in zip(flat[1:], layers[1:], strict=True):
        by_x.addmm_(gradient, _dense(base, x.dtype))
    if ups:
        by_x.addmm_(low_gradient, _joined(downs))
    return [by_x.view(x.shape), by_downs, *by_ups]


@_backward.register_fake
def _(
    gradients: Sequence[torch.Tensor],
    x: torch.Tensor,
    low: torch.Tensor,
    bases: Sequence[torch.Tensor],
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scaling: float,
    wants_input: bool,
) -> list[torch.Tensor]:
    by_x = x.new_empty(x.shape if wants_input else 0)
    return [by_x, x.new_empty((low.shape[-1], x.shape[-1])), *(up.new_empty(up.shape) for up in ups)]


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    x, bases, biases, downs, ups, scaling = inputs
    ctx.save_for_backward(x, output[0], *bases, *downs, *ups)
    ctx.sizes = (len(bases), len(biases), len(downs))
    ctx.scaling = scaling
    ctx.wants_input = x.requires_grad


def _differentiate(ctx: Any, gradients: list[torch.Tensor]) -> tuple[Any, ...]:
    x, low, *others = ctx.saved_tensors
    num_bases, num_biases, num_layers = ctx.sizes
    bases, rest = others[:num_bases], others[num_bases:]
    downs, ups = rest[:num_layers], rest[num_layers:]
    by_x, by_downs, *by_ups = _backward(
        [gradient.contiguous() for gradient in gradients[1:]], x, low, bases, downs, ups, ctx.scaling, ctx.wants_input
    )
    return (
        by_x if ctx.wants_input else None,
        [None] * num_bases,
        [None] * num_biases,
        list(by_downs.split([down.shape[0] for down in downs])),
        by_ups,
        None,
    )


_forward.register_autograd(_differentiate, setup_context=_set_up)

OPERATOR: Final = torch.ops.michelangelo.lora_project.default
"""For policies of recomputation: its outputs are those of matrix products."""


def _joined(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    return matrices[0] if len(matrices) == 1 else torch.cat(tuple(matrices))


def _grouped(tensors: Sequence[torch.Tensor], count: int) -> list[Sequence[torch.Tensor]]:
    size = len(tensors) // count
    return [tensors[i * size : (i + 1) * size] for i in range(count)]


def _dense(base: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    return base[0] if len(base) == 1 else nf4.dequantize(base, dtype)
