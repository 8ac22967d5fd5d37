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

_ATEN_KEPT: Final = (
    "mm",
    "addmm",
    "_grouped_mm",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
"""Operators whose outputs `selective` keeps: long to compute for their size. Not bmm: eager attention's S x S."""
_OTHERS_KEPT: Final = ("torch_attn._varlen_attn", "flash_attn._flash_attn_varlen_forward")
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
    """Whether `selective` keeps the outputs of an operator."""
    return operator in _kept()


def _forward_of(layer_class: type[nn.Module], kind: Checkpointing) -> Any:
    options: dict[str, Any] = {"use_reentrant": False}
    if kind == "selective":
        options["context_fn"] = functools.partial(checkpoint.create_selective_checkpoint_contexts, _policy)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return layer_class.forward(self, *args, **kwargs)
        return checkpoint.checkpoint(layer_class.forward, self, *args, **options, **kwargs)

    return forward


def _policy(_: Any, operator: Any, *args: Any, **kwargs: Any) -> checkpoint.CheckpointPolicy:
    return (
        checkpoint.CheckpointPolicy.MUST_SAVE if operator in _kept() else checkpoint.CheckpointPolicy.PREFER_RECOMPUTE
    )


@functools.cache
def _kept() -> frozenset[Any]:
    operators: list[Any] = [
        getattr(torch.ops.aten, name).default for name in _ATEN_KEPT if hasattr(torch.ops.aten, name)
    ]
    for path in _OTHERS_KEPT:
        namespace, name = path.split(".")
        if hasattr(getattr(torch.ops, namespace), name):
            operators.append(getattr(getattr(torch.ops, namespace), name).default)
    return frozenset([*operators, lora_linear.OPERATOR, lora_experts.OPERATOR])
