"""Bytes that a training pass moves through a GPU's memory beside its matrix products, in closed form.

Per token of one forward and backward pass, by part of a layer and by how operations are fused. Each operation reads
its inputs and writes its outputs once (2 bytes a value in bf16, 4 in fp32). It counts no FLOPs, and what is kept in
memory is counted in `activations`.

The counts are of Transformers' modules: an RMSNorm in eager mode is upcast, squared, averaged, scaled and cast back in
separate kernels (36 bytes a value; PyTorch's own LayerNorm is one kernel); rotary embedding is seven kernels; a gated
MLP two. Going back, a kernel reads its output's gradient and its input, and writes a gradient: half as much again.
torch.compile makes one kernel of neighbours; hand-written kernels keep a little less.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner.kernels import Fusion

__all__ = ["Traffic", "eager_scores_bytes", "kernels_per_layer", "lora_bytes", "of_pass"]

_NORM: Final = {"eager": 36.0, "compiled": 6.0, "fused": 4.0}
"""Of an RMSNorm, per value, forward; a LayerNorm is one kernel in all cases."""
_LAYER_NORM: Final = 4.0
_RESIDUAL: Final = {"eager": 6.0, "compiled": 4.0, "fused": 4.0}
_ROTARY: Final = {"eager": 24.0, "compiled": 5.0, "fused": 4.0}
_GATED: Final = {"eager": 10.0, "compiled": 6.0, "fused": 6.0}
_PLAIN_ACTIVATION: Final = 4.0
_BACK: Final = 1.5
_LOGITS_PLAIN: Final = {"eager": 34.0, "compiled": 18.0, "fused": 12.0}
"""Per logit, forward and backward: written, upcast, log-softmax, its gradient, and cast back."""
_LOGITS_CHUNKED: Final = {"eager": 22.0, "compiled": 14.0, "fused": 10.0}
_SCORES: Final = 34.0
"""Per score of eager attention, forward and backward: written, masked, softmax in fp32, cast, dropout, and all back."""
_KERNELS: Final = {"eager": 95, "compiled": 45, "fused": 45}
"""Launches per layer, forward and backward."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes per token: forward, backward, and both of the logits."""

    forward: float
    backward: float
    logits: float


@functools.lru_cache(maxsize=512)
def of_pass(shape: ModelShape, fusion: Fusion, chunked: bool, split: int) -> Traffic:
    """All layers and the loss; `split`: tensor-parallel ranks, which divide all but norms and residuals."""
    hidden = float(shape.hidden_size)
    norm = _LAYER_NORM if shape.layer_norm else _NORM[fusion]
    per_layer = norm * hidden * shape.norms_per_layer + 2 * _RESIDUAL[fusion] * hidden
    heads = (shape.query_size + shape.kv_size) / split
    if shape.qk_norm:
        per_layer += norm * heads
    per_layer += _ROTARY[fusion] * heads * shape.rotary_share
    forward = per_layer * shape.num_layers + _mlp(shape, fusion) / split
    logits = (_LOGITS_CHUNKED if chunked else _LOGITS_PLAIN)[fusion] * shape.vocab_size / split
    return Traffic(forward, _BACK * forward, logits)


@functools.lru_cache(maxsize=512)
def lora_bytes(shape: ModelShape, rank: int, targets: tuple[str, ...], fusion: Fusion) -> float:
    """Per token, forward and backward: the adapters read the input again and add to the output. In eager mode (PEFT)
    the product is scaled and added in kernels of its own; fused it is added in place, once for layers that share an
    input."""
    read = {"eager": 2.0, "compiled": 2.0, "fused": 1.0}[fusion]
    add = {"eager": 12.0, "compiled": 6.0, "fused": 4.0}[fusion]
    moved = 0.0
    for p in shape.lora_projections(targets):
        moved += (read * p.inputs + add * p.outputs + 4.0 * rank) * p.layers * p.active
    return moved * (1 + _BACK)


def eager_scores_bytes(shape: ModelShape, sequence_length: int) -> float:
    """Per token: scores are S wide, whatever the mask, in every head."""
    return _SCORES * shape.num_heads * sequence_length * shape.num_layers


def kernels_per_layer(shape: ModelShape, fusion: Fusion, *, adapted: bool) -> float:
    """Launches, forward and backward; adapters double the matrix products, experts of a mixture multiply them."""
    count = float(_KERNELS[fusion]) + (60 if adapted else 0)
    return count * (1.0 + 0.15 * shape.num_experts if shape.num_experts and fusion == "eager" else 1.0)


def _mlp(shape: ModelShape, fusion: Fusion) -> float:
    """Of all layers: activation and product; mixtures also gather their tokens and add the outputs up."""
    per_value = _GATED[fusion] if shape.gated_mlp else _PLAIN_ACTIVATION
    if not shape.num_experts:
        return per_value * shape.intermediate_size * shape.num_layers
    width = shape.intermediate_size * shape.experts_per_token + shape.shared_intermediate_size
    moved = 4.0 * shape.hidden_size * (2 * shape.experts_per_token + 1)
    routed = (per_value * width + moved) * shape.num_moe_layers
    return routed + per_value * shape.dense_intermediate_size * shape.num_dense_layers
