"""Memory for time: what a layer computed on the way forward is computed again on the way back.

One decoder layer at a time. The forward of each layer is replaced on the instance, inside whatever calls the layer: so
`layer.compile()` sees the recomputation and plans it, and hooks of FSDP2 stay around it. It decides nothing about
which kind is right; the planner does.
"""

from __future__ import annotations

import functools
import types
from typing import Any, Final

import torch
from torch import nn
from torch.utils import checkpoint
from transformers import PreTrainedModel

from michelangelo.llm.finetune import lora_experts, lora_linear
from michelangelo.llm.finetune import model as models
from michelangelo.llm.training_setup import Checkpointing

__all__ = ["apply", "is_kept"]

_PRODUCTS: Final = ("mm", "addmm", "_grouped_mm")
"""Matrix products, of which `selective` keeps the first, third, … of a layer. Not bmm: eager attention's S x S."""
_ATTENTIONS: Final = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
"""Operators whose outputs `selective` always keeps: long to compute for their size."""
_OTHER_ATTENTIONS: Final = ("torch_attn._varlen_attn", "flash_attn._flash_attn_varlen_forward")
"""Attention of variable length, by namespace and name, where it is there."""


def apply(model: PreTrainedModel, kind: Checkpointing) -> None:
    """From now on layers compute again in the backward pass; `none` takes that back. Numbers stay the same.

    Raises ModelError if the model's layers are not found.
    """
    # Layers that share an input (`adapters.SharedInput`) hand tensors over within a forward and hold nothing after it:
    # a side effect that the recomputation in the compiled graph needs not repeat.
    torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    for layer in models.decoder_layers(model):
        layer.__dict__.pop("forward", None)
        if kind != "none":
            layer.forward = types.MethodType(_forward_of(type(layer), kind), layer)


def is_kept(operator: Any) -> bool:
    """Whether `selective` keeps outputs of an operator: of attention always, of products every second one."""
    return operator in _attentions() or operator in _products()


def _forward_of(layer_class: type[nn.Module], kind: Checkpointing) -> Any:
    options: dict[str, Any] = {"use_reentrant": False}
    if kind == "selective":
        options["context_fn"] = _contexts

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return layer_class.forward(self, *args, **kwargs)
        return checkpoint.checkpoint(layer_class.forward, self, *args, **options, **kwargs)

    return forward


def _contexts() -> Any:
    """For one pass through one layer: torchtitan's policy, whose memory and time the planner counts."""
    counts = {False: 0, True: 0}

    def policy(ctx: Any, operator: Any, *args: Any, **kwargs: Any) -> checkpoint.CheckpointPolicy:
        kept = operator in _attentions()
        if operator in _products():
            counts[ctx.is_recompute] += 1
            kept = counts[ctx.is_recompute] % 2 == 1
        return checkpoint.CheckpointPolicy.MUST_SAVE if kept else checkpoint.CheckpointPolicy.PREFER_RECOMPUTE

    return checkpoint.create_selective_checkpoint_contexts(policy)  # type: ignore[no-untyped-call]


@functools.cache
def _products() -> frozenset[Any]:
    return frozenset([*_aten(_PRODUCTS), lora_linear.OPERATOR, lora_experts.OPERATOR])


@functools.cache
def _attentions() -> frozenset[Any]:
    found = _aten(_ATTENTIONS)
    for path in _OTHER_ATTENTIONS:
        namespace, name = path.split(".")
        if hasattr(getattr(torch.ops, namespace), name):
            found.append(getattr(getattr(torch.ops, namespace), name).default)
    return frozenset(found)


def _aten(names: tuple[str, ...]) -> list[Any]:
    return [getattr(torch.ops.aten, name).default for name in names if hasattr(torch.ops.aten, name)]
