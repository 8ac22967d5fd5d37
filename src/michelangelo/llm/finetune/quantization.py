"""Frozen weights in 4 bits, for QLoRA: which tensors are packed, and modules that compute with them.

Linear layers and fused experts of the decoder's layers are packed; embeddings, norms, routers and the output matrix are
not. A packed module keeps its place and its names: the parameter is then uint8, and its scales are buffers beside it. A
matrix is unpacked where it is multiplied, forward and backward, and freed at once: the allocator hands the same memory
to the next one, so what is needed beside the packed weights is one matrix in the dtype of computation. Batches of
thousands of tokens hide the unpacking behind the products.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from michelangelo import errors
from michelangelo.llm.finetune import lora_experts, lora_linear, nf4, projections
from michelangelo.llm.finetune import model as models
from michelangelo.llm.finetune.config import AdapterConfig, ModelConfig
from michelangelo.llm.training_setup import Precision

__all__ = ["Nf4Linear", "load", "quantize_", "restore"]


_HOST: Final = torch.device("cpu")


class Nf4Linear(nn.Linear):
    """A frozen linear layer in NF4. `weight` is uint8, [out, in / 2]; the sizes are those of the layer that it was."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return lora_linear.multiply(x, nf4.parts_of(self), self.bias)


def load(config: ModelConfig, adapter: AdapterConfig, *, precision: Precision, device: torch.device) -> PreTrainedModel:
    """The model on `device`, packed. Raises ModelError.

    Files are read on the host; matrix by matrix they come to the device and are packed, so that a GPU never holds the
    whole model in bf16. Only random weights, for measurements, are made on the device and packed there.
    """
    loaded = models.load(config, precision=precision, device=device if config.from_scratch else _HOST)
    quantize_(loaded, adapter, device=device)
    nn.Module.to(loaded, device)
    return loaded


def quantize_(model: PreTrainedModel, config: AdapterConfig, *, device: torch.device | None = None) -> None:
    """Packs in place, on `device`, or where each weight is. Raises ModelError if the model has nothing to pack."""
    double, count = config.double_quantization, 0
    for _, module in list(projections.linear_layers(model)):
        if type(module) is nn.Linear and module.in_features % 2 == 0:
            module.__class__ = Nf4Linear
            nf4.pack(module, "weight", double=double, device=device or module.weight.device)
            count += 1
    for _, module, names in list(projections.experts(model)):
        if not projections.has_known_forward(module) or any(getattr(module, name).shape[-1] % 2 for name in names):
            continue
        for name in names:
            nf4.pack(module, name, double=double, device=device or getattr(module, name).device)
            count += 1
        lora_experts.install(module, {})
    if not count:
        raise errors.ModelError(
            f"adapter.method qlora: {type(model).__name__} has no linear layers that can be packed in 4 bits; use lora"
        )


def restore(module: nn.Module, dtype: torch.dtype) -> None:
    """A packed layer or experts as they were before, but for what packing lost; others are left as they are."""
    for name in [own for own, _ in module.named_parameters(recurse=False) if nf4.is_packed(module, own)]:
        nf4.unpack(module, name, dtype)
    if isinstance(module, Nf4Linear):
        plain: Any = module
        plain.__class__ = nn.Linear
