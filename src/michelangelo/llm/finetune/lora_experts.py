"""Fused experts of a mixture, with low-rank updates and weights in NF4: tokens sorted by expert, grouped products.

PEFT adds the update to the weights of all experts at each pass, which costs a second copy of them per layer, kept for
the way back. Here the update goes through the activations, as in a linear layer: y = x W_e^T + s (x A_e^T) B_e^T for
the expert e that a token is sent to. Parameters and their names are PEFT's.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from peft.tuners.lora import layer as peft_layer
from torch import nn
from torch.nn import functional as F
from transformers.integrations import moe as _moe  # registers the grouped product for dtypes that compilers lack

from michelangelo.llm.finetune import nf4

__all__ = ["OPERATOR", "ExpertAdapter", "install", "uninstall"]

_ALIGNMENT: Final = 16
"""Bytes: rows of the grouped product's operands start at multiples of this."""
assert hasattr(_moe, "use_experts_implementation")


class ExpertAdapter(peft_layer.ParamWrapper):
    """PEFT's adapter of one parameter of experts. The experts themselves apply it (`install`)."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return cast(torch.Tensor, self.base_layer(x, *args, **kwargs))

    def factors(self, adapter: str = "default") -> tuple[torch.Tensor, torch.Tensor, float]:
        """A^T [experts, in, rank], B^T [experts, rank, out], ranks filled up with zeros to 16 bytes; the scaling."""
        rank = self.r[adapter]
        down = cast(torch.Tensor, self.lora_A[adapter].weight).view(self.num_experts, rank, -1)
        up = cast(torch.Tensor, self.lora_B[adapter].weight).view(-1, rank, self.num_experts).permute(2, 1, 0)
        missing = -rank % (_ALIGNMENT // down.element_size())
        if missing:
            down, up = F.pad(down, (0, 0, 0, missing)), F.pad(up, (0, 0, 0, missing))
        return down.transpose(1, 2), up.contiguous(), self.scaling[adapter]


def install(experts: nn.Module, adapters: dict[str, ExpertAdapter]) -> None:
    """The forward of these experts is from now on ours; `adapters` by the names of parameters that have one."""
    experts.__dict__["low_rank"] = adapters
    experts.forward = types.MethodType(_forward, experts)


def uninstall(experts: nn.Module) -> None:
    """The forward is Transformers' again."""
    experts.__dict__.pop("low_rank", None)
    experts.__dict__.pop("forward", None)


def _forward(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """hidden_states: [T, H]; top_k_index, top_k_weights: [T, K] → [T, H]. What Transformers calls experts with."""
    tokens, chosen = top_k_index.shape
    sorted_ids, order = torch.sort(top_k_index.flatten(), stable=True)
    every = torch.arange(self.num_experts, device=sorted_ids.device)
    ends = torch.searchsorted(sorted_ids, every, right=True).to(torch.int32)
    x = hidden_states[order // chosen]
    first = "gate_up_proj" if self.has_gate else "up_proj"
    inner = _project(self, first, x, ends, sorted_ids)
    inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
    outer = _project(self, "down_proj", inner, ends, sorted_ids)
    if getattr(self, "has_post_expert_norm", False):
        outer = self.post_expert_norm(outer)
    weighted = outer * top_k_weights.flatten()[order].unsqueeze(1)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    summed: torch.Tensor = weighted[back].view(tokens, chosen, -1).sum(1)
    return summed.to(hidden_states.dtype)


def _project(self: Any, name: str, x: torch.Tensor, ends: torch.Tensor, sorted_ids: torch.Tensor) -> torch.Tensor:
    parts = nf4.parts_of(self, name)
    if len(parts) == 1:
        y = _grouped(x, parts[0] if self.is_transposed else parts[0].transpose(1, 2), ends)
    else:
        y = _packed(x, parts, ends, self.is_transposed)
    adapter: ExpertAdapter | None = self.low_rank.get(name)
    if adapter is not None and not adapter._disable_adapters:
        down, up, scaling = adapter.factors()
        y = y + _grouped(_grouped(x, down, ends) * scaling, up, ends)
    return y + getattr(self, f"{name}_bias")[sorted_ids] if self.has_bias else y


def _grouped(x: torch.Tensor, matrices: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """x: [S, in], rows up to ends[e] are of expert e; matrices: [experts, in, out] → [S, out]."""
    if torch.compiler.is_compiling() and x.dtype != torch.bfloat16:
        return cast(torch.Tensor, torch.ops.transformers.grouped_mm_fallback(x, matrices, ends))
    return F.grouped_mm(x, matrices, offs=ends)


@torch.library.custom_op("michelangelo::packed_experts", mutates_args=())
def _packed(x: torch.Tensor, parts: Sequence[torch.Tensor], ends: torch.Tensor, is_transposed: bool) -> torch.Tensor:
    """`_grouped` with matrices in NF4, of which only the parts are kept."""
    dense = nf4.dequantize(parts, x.dtype)
    return F.grouped_mm(x, dense if is_transposed else dense.transpose(1, 2), offs=ends)


@_packed.register_fake
def _(x: torch.Tensor, parts: Sequence[torch.Tensor], ends: torch.Tensor, is_transposed: bool) -> torch.Tensor:
    packed = parts[0]
    return x.new_empty((x.shape[0], packed.shape[2] * 2 if is_transposed else packed.shape[1]))


@torch.library.custom_op("michelangelo::packed_experts_backward", mutates_args=())
def _packed_backward(
    gradient: torch.Tensor, parts: Sequence[torch.Tensor], ends: torch.Tensor, is_transposed: bool
) -> torch.Tensor:
    dense = nf4.dequantize(parts, gradient.dtype)
    return F.grouped_mm(gradient, dense.transpose(1, 2) if is_transposed else dense, offs=ends)


@_packed_backward.register_fake
def _(gradient: torch.Tensor, parts: Sequence[torch.Tensor], ends: torch.Tensor, is_transposed: bool) -> torch.Tensor:
    packed = parts[0]
    return gradient.new_empty((gradient.shape[0], packed.shape[1] if is_transposed else packed.shape[2] * 2))


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, parts, ends, is_transposed = inputs
    ctx.save_for_backward(*parts, ends)
    ctx.is_transposed = is_transposed


def _differentiate(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    *parts, ends = ctx.saved_tensors
    by_x = _packed_backward(gradient.contiguous(), parts, ends, ctx.is_transposed)
    return by_x, [None] * len(parts), None, None


_packed.register_autograd(_differentiate, setup_context=_set_up)

OPERATOR: Final = torch.ops.michelangelo.packed_experts.default
"""For policies of recomputation."""
