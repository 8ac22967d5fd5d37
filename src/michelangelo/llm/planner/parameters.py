"""Bytes that parameters cost while they are trained: weights, gradients, optimizer states, and how they are split.

Per GPU or per host, in closed form, for one setup. What a forward pass keeps is in `activations`; which of these live
at the same moment is in `memory`.

Sources: ZeRO stages: Rajbhandari et al. 2020 (arXiv 1910.02054, section 3); NF4 and double quantisation: Dettmers et
al. 2023 (arXiv 2305.14314, sections 2 and 3); 8-bit states in blocks of 256: Dettmers et al. 2022 (arXiv 2110.02861).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["States", "nf4_bytes_per_weight", "states_of"]

_NF4_BLOCK: Final = 64
_SCALE_BLOCK: Final = 256
_STATE_BLOCK: Final = 256
_DEEPSPEED_BUCKET: Final = 500_000_000
"""Elements of a bucket of gradients (DeepSpeed's reduce_bucket_size and allgather_bucket_size, by default 5e8)."""


@dataclass(frozen=True, slots=True)
class States:
    """Bytes on one GPU, but for those named host (all of one node's GPUs together)."""

    weights: float
    reference: float
    """A second, frozen model (DPO of all weights)."""
    gradients: float
    """When all are there, in the dtype of the backward pass (fp32 while several passes are summed)."""
    step_gradients: float
    """As the optimizer takes them (fp32 in bf16_mixed)."""
    optimizer: float
    gathered: float
    """Weights that sharding (or offload) brings together: this layer's and the next one's."""
    gathered_head: float
    """The output matrix, for the loss."""
    reducing: float
    """Gradients of a layer on their way to the GPUs that keep them."""
    head_gradient: float
    """Of the output matrix: it is there before any layer goes back."""
    head_sum: float
    """The fp32 sum of the output matrix's gradient, which chunked cross-entropy makes."""
    dequantized: float
    """The largest quantised matrix in bf16, for one product."""
    host_weights: float
    host_gradients: float
    host_optimizer: float
    host_buffers: float
    """Pinned memory that is copied through."""


def nf4_bytes_per_weight(double_quantization: bool) -> float:
    """0.5 byte, and a scale per 64 weights: fp32 (0.5 bit), or 8 bits with fp32 per 256 scales (0.127 bit)."""
    if not double_quantization:
        return 0.5 + 4 / _NF4_BLOCK
    return 0.5 + 1 / _NF4_BLOCK + 4 / (_NF4_BLOCK * _SCALE_BLOCK)


def states_of(shape: ModelShape, setup: TrainingSetup) -> States:
    """For the setup as it is; nothing is checked."""
    counts = _counts(shape, setup.method, setup.lora_targets, setup.lora_rank, setup.tensor_parallel)
    element = 4 if setup.precision == "fp32" else 2
    replicas, is_full = setup.data_parallel, setup.method == "full"
    shards_weights, shards_gradients, shards_states = _sharded(setup)
    frozen = counts.quantized * nf4_bytes_per_weight(setup.double_quantization) + counts.plain_frozen * element
    weights = (frozen + counts.trained * element) / (replicas if shards_weights else 1)
    backward, stepping = _gradient_bytes(setup, element)
    kept = counts.trained / (replicas if shards_gradients else 1)
    stepped = counts.trained / (replicas if shards_states else 1)
    state_bytes, host_state_bytes = _optimizer_bytes(setup, element)
    optimizer, gradients, step_gradients = stepped * state_bytes, kept * backward, stepped * stepping
    if not shards_gradients and shards_states:
        step_gradients += gradients
    reference = 0.0
    if setup.asks_reference and is_full:
        reference = counts.trained * element / (replicas if shards_weights else 1)
    is_gathered = (shards_weights and replicas > 1) or setup.offload == "parameters"
    local = min(setup.gpus_per_node, setup.num_gpus)
    host_weights = host_gradients = host_optimizer = buffers = 0.0
    if setup.offload != "none":
        host_optimizer, host_gradients = optimizer, kept * max(backward, stepping)
        optimizer = step_gradients = gradients = 0.0
        buffers = 2 * counts.layer * element
        if setup.offload == "parameters":
            host_weights, weights, reference = weights + reference, 0.0, 0.0
    host_optimizer += stepped * host_state_bytes
    return States(
        weights=weights,
        reference=reference,
        gradients=gradients,
        step_gradients=step_gradients,
        optimizer=optimizer,
        gathered=2 * counts.layer * element if is_gathered else 0.0,
        gathered_head=counts.head * element if is_gathered else 0.0,
        reducing=_reducing(counts, setup, element),
        head_gradient=counts.head * backward / (replicas if shards_gradients else 1) if is_full else 0.0,
        head_sum=counts.head * 4.0 if is_full else 0.0,
        dequantized=counts.largest_matrix * 2.0 if setup.method == "qlora" else 0.0,
        host_weights=host_weights * local,
        host_gradients=host_gradients * local,
        host_optimizer=host_optimizer * local,
        host_buffers=buffers * local,
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """Parameters on one GPU before any data-parallel sharding."""

    quantized: float
    plain_frozen: float
    trained: float
    layer: float
    """Of the largest layer, as gathered (in the elements that it is stored in)."""
    layer_trained: float
    head: float
    largest_matrix: float


@functools.lru_cache(maxsize=4096)
def _counts(shape: ModelShape, method: str, targets: tuple[str, ...], rank: int, split: int) -> _Counts:
    counts, total = shape.counts, shape.num_parameters
    whole = (total - counts.norms) / split + counts.norms
    head = shape.vocab_size * (shape.embedding_size or shape.hidden_size) / split
    layer = shape.largest_layer_parameters / split
    matrices = [p.weights * (p.copies if p.is_fused_expert else 1) for p in shape.projections]
    largest = max(matrices) / split
    if method == "full":
        return _Counts(0.0, 0.0, whole, layer, layer, head, largest)
    adapters = float(shape.lora_parameters(rank, targets))
    quantized = 0.0
    if method == "qlora":
        quantized = sum(p.weights * p.layers * p.copies for p in shape.projections if p.kind != "router") / split
        layer = layer * nf4_bytes_per_weight(True) / 2 if whole else layer
    return _Counts(
        quantized,
        whole - quantized,
        adapters,
        layer,
        adapters / shape.num_layers,
        head,
        largest,
    )


def _sharded(setup: TrainingSetup) -> tuple[bool, bool, bool]:
    """Whether weights, gradients and optimizer states are divided among the replicas."""
    stage = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp2": 3}[setup.sharding]
    return stage >= 3, stage >= 2, stage >= 1


def _gradient_bytes(setup: TrainingSetup, element: int) -> tuple[float, float]:
    """Per trained parameter: at the end of the backward pass, and at the step."""
    if setup.optimizer_in_backward:
        return 0.0, 0.0
    if setup.precision != "bf16_mixed":
        return float(element), float(element)
    return (4.0 if setup.gradient_accumulation > 1 else 2.0), 4.0


def _optimizer_bytes(setup: TrainingSetup, element: int) -> tuple[float, float]:
    """Per trained parameter, on the GPU and (paged) on the host."""
    copy, wide = (4.0, 4.0) if setup.precision == "bf16_mixed" else (0.0, float(element))
    quantized = 2 * (1 + 4 / _STATE_BLOCK)
    if setup.optimizer == "paged_adamw_8bit":
        return copy, quantized
    return copy + {"adamw": 2 * wide, "adamw_8bit": quantized, "sgd": wide}[setup.optimizer], 0.0


def _reducing(counts: _Counts, setup: TrainingSetup, element: int) -> float:
    if setup.data_parallel == 1 and setup.offload == "none":
        return 0.0
    if setup.sharding == "fsdp2":
        return counts.layer_trained * (element + (4.0 if setup.precision == "bf16_mixed" else element))
    if setup.sharding == "none":
        return counts.trained * element if setup.ddp_buckets else 0.0
    return min(counts.trained, _DEEPSPEED_BUCKET) * element
