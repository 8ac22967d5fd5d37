"""Where the matrices of a decoder are, whatever its architecture calls them: what can be adapted, and what is packed.

Linear layers (Transformers' Conv1D too) and fused experts, parameters of three dimensions, within the decoder's layers;
neither embeddings and the output matrix nor routers. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from michelangelo.llm.finetune import model as models

__all__ = ["experts", "has_known_forward", "layers", "linear_layers"]

_ROUTERS: Final = frozenset({"gate", "router", "shared_expert_gate"})
"""Parts of a path that choose experts. Trained with frozen experts, they lose the balance they were trained for."""


def layers(model: PreTrainedModel) -> tuple[nn.ModuleList, str]:
    """The decoder's layers and their name in the model."""
    found = models.decoder_layers(model)
    return found, next(name for name, module in model.named_modules() if module is found)


def linear_layers(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    """Names in the model, and layers with `weight`: [out, in], of Conv1D [in, out]."""
    for name, module in _inner_modules(model):
        if isinstance(module, nn.Linear | Conv1D) and not _ROUTERS & set(name.split(".")):
            yield name, module


def experts(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
    """Names in the model, modules of fused experts, and their parameters [experts, ., .]."""
    for name, module in _inner_modules(model):
        fused = tuple(own for own, parameter in module.named_parameters(recurse=False) if parameter.dim() == 3)
        if fused and not _ROUTERS & set(name.split(".")):
            yield name, module, fused


def has_known_forward(module: nn.Module) -> bool:
    """Whether the experts follow Transformers' interface of experts, so that their forward can be replaced."""
    return all(hasattr(module, name) for name in ("has_gate", "has_bias", "is_transposed", "num_experts"))


def _inner_modules(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    found, prefix = layers(model)
    for name, module in found.named_modules():
        if name:
            yield f"{prefix}.{name}", module
