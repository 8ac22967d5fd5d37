"""What a layer keeps between its forward and its backward pass, in bytes per token, in closed form.

One table per kind of layer, as Transformers computes it in eager mode and as torch.compile leaves it; tests/llm/tracing
compare both with what autograd really keeps (docs/llm/memory.md has the tables). The rules:

- A matrix product keeps its input if its weight, or an adapter on it, is trained; a frozen one keeps nothing.
- An RMSNorm in eager mode keeps its input in fp32 and, if its weight is trained, the normed input. Compiled, it keeps
  its input in the model's dtype, and what a trained matrix product reads is kept rather than computed again.
- Attention keeps queries, keys, values, its output and one float per head (flash), or scores (eager).
- A gated MLP keeps gate, silu(gate), up and their product; compiled, silu(gate) is computed again.

Source of the method: Korthikanti et al. 2022 (arXiv 2205.05198), section 4, redone for GQA, gated MLPs and mixtures.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.model_shape import ModelShape, Projection
from michelangelo.llm.training_setup import TrainingSetup

__all__ = [
    "KINDS",
    "LayerBytes",
    "element_bytes",
    "ends_bytes",
    "kept_by_layers",
    "largest_layer",
    "scores_going_back",
]

KINDS: Final = ("attention", "mlp", "norms", "residual")
_FP32: Final = 4
_LLAMA_SCORES: Final = (1, 1)
_EAGER_SCORES: Final = {"falcon": (0, 1), "gpt2": (0, 1), "gpt_bigcode": (0, 1), "gpt_oss": (0, 1)}
"""Copies of the S x S probabilities that eager attention keeps: in fp32, and in the model's dtype."""
_LOG_SUM_BYTES: Final = 4
"""Flash attention's log-sum-exp, per head and token (fp32)."""


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Per token. `residual` is what checkpointing keeps: the layer's input."""

    attention: float = 0.0
    mlp: float = 0.0
    norms: float = 0.0
    residual: float = 0.0

    @property
    def total(self) -> float:
        return self.attention + self.mlp + self.norms + self.residual

    def __add__(self, other: LayerBytes) -> LayerBytes:
        return LayerBytes(
            self.attention + other.attention,
            self.mlp + other.mlp,
            self.norms + other.norms,
            self.residual + other.residual,
        )

    def __mul__(self, factor: float) -> LayerBytes:
        return LayerBytes(self.attention * factor, self.mlp * factor, self.norms * factor, self.residual * factor)


def element_bytes(setup: TrainingSetup) -> int:
    """Of activations: 4 in fp32, else 2."""
    return 4 if setup.precision == "fp32" else 2


def kept_by_layers(shape: ModelShape, setup: TrainingSetup) -> LayerBytes:
    """All layers, under the setup's checkpointing, from the end of the forward pass on. Bytes per token."""
    return _kept(_Case.of(shape, setup), setup.checkpointing)


def largest_layer(shape: ModelShape, setup: TrainingSetup) -> LayerBytes:
    """What one layer holds while it is computed again and goes back, whatever the checkpointing. Bytes per token."""
    return _largest(_Case.of(shape, setup))


def scores_going_back(shape: ModelShape, setup: TrainingSetup) -> tuple[float, float]:
    """Eager attention, while the softmax goes back: bytes per token of the gradients of probabilities and of scores,
    and of what was kept of the probabilities and is not needed any more."""
    case = _Case.of(shape, setup)
    scores = setup.sequence_length * shape.num_heads / setup.tensor_parallel
    gradient = case.element if case.compiled else _FP32
    is_freed = case.compiled or (case.element != _FP32 and _per_score(case) > _FP32)
    return 2 * gradient * scores, (case.element if is_freed else 0) * scores


def ends_bytes(shape: ModelShape, setup: TrainingSetup) -> float:
    """What the last norm keeps, and its output. Bytes per token."""
    case = _Case.of(shape, setup)
    return _norm(case, shape.hidden_size) + case.element * shape.hidden_size


@dataclass(frozen=True, slots=True)
class _Case:
    """What activations depend on, and nothing else: the key of the caches."""

    shape: ModelShape
    element: int
    trains_weights: bool
    copied: int
    """Bytes per element of the copy of its input that each quantised matrix keeps."""
    targets: tuple[str, ...]
    rank: int
    dropout: bool
    eager_length: int
    """The sequence length, where scores are kept; 0 with flash."""
    compiled: bool
    tensor_parallel: int

    @classmethod
    def of(cls, shape: ModelShape, setup: TrainingSetup) -> _Case:
        is_full = setup.method == "full"
        return cls(
            shape,
            element_bytes(setup),
            is_full,
            _copied(setup),
            () if is_full else setup.lora_targets,
            0 if is_full else setup.lora_rank,
            not is_full and setup.lora_dropout > 0,
            setup.sequence_length if setup.attention == "eager" else 0,
            setup.compiled,
            setup.tensor_parallel,
        )


def _copied(setup: TrainingSetup) -> int:
    if setup.method != "qlora":
        return 0
    if setup.quantized_copy_bytes is not None:
        return setup.quantized_copy_bytes
    return 0 if setup.compiled else 2


@functools.lru_cache(maxsize=8192)
def _kept(case: _Case, checkpointing: str) -> LayerBytes:
    shape = case.shape
    dense, moe = shape.num_layers - shape.num_moe_layers, shape.num_moe_layers
    if checkpointing == "full":
        return LayerBytes(residual=float(case.element * shape.hidden_size)) * shape.num_layers
    one = _selected if checkpointing == "selective" else _layer
    total = LayerBytes()
    if dense:
        total = total + one(case, False) * dense
    if moe:
        total = total + one(case, True) * moe
    return total


@functools.lru_cache(maxsize=8192)
def _largest(case: _Case) -> LayerBytes:
    shape = case.shape
    kinds = {False} if not shape.num_experts else {True, *([False] if shape.num_dense_layers else [])}
    return max((_layer(case, is_moe) for is_moe in kinds), key=lambda kept: kept.total)


def _layer(case: _Case, is_moe: bool) -> LayerBytes:
    copies = {"attention": 0.0, "mlp": 0.0, "router": 0.0}
    for p in case.shape.projections if case.copied else ():
        if p.kind == "attention" or p.is_fused_expert == is_moe:
            copies[p.kind] += case.copied * p.inputs * p.active
    return LayerBytes(
        _attention(case) + copies["attention"],
        (_moe(case) if is_moe else _mlp(case)) + copies["mlp"],
        _norms(case),
    )


def _norm(case: _Case, size: int) -> float:
    """Bytes per token that a norm over `size` keeps, its output left out."""
    shape = case.shape
    if shape.layer_norm:
        return case.element * size + 2 * case.element
    if case.compiled:
        return case.element * size + _FP32
    weighted = _FP32 if shape.norm_in_fp32 else case.element
    return _FP32 * size + _FP32 + (weighted * size if case.trains_weights and shape.norm_size else 0)


def _norms(case: _Case) -> float:
    shape, hidden = case.shape, case.shape.hidden_size
    if shape.parallel_residual:
        # Two norms of the same input keep it once.
        extra = (shape.norms_per_layer - 1) * 2 * case.element
        return _norm(case, hidden) + extra if shape.layer_norm else _norm(case, hidden) * shape.norms_per_layer
    count = shape.norms_per_layer
    if case.compiled and not shape.layer_norm and count == 4:
        # The sum in the middle is computed again of the layer's input and attention's output.
        return 3 * case.element * hidden + 4 * _FP32
    return count * _norm(case, hidden)


def _attention(case: _Case) -> float:
    shape, element, split = case.shape, case.element, case.tensor_parallel
    query, kv = shape.query_size / split, shape.kv_size / split
    names = [p for p in shape.projections if p.kind == "attention"]
    inputs, output = names[:-1], names[-1]
    total = _input(case, inputs, shape.hidden_size) + _adapter_states(case, names)
    total += _qk_norms(case, query, kv)
    is_rotated_by_parts = 0 < shape.rotary_share < 1 or shape.architecture in ("phi3", "gpt_neox")
    if case.eager_length:
        return total + _eager_attention(case, query, output)
    total += _LOG_SUM_BYTES * shape.num_heads / split
    if shape.architecture == "falcon" and shape.num_kv_heads > 1:
        kv = query  # each head gets its own copy of keys and values
    if shape.fused_qkv and shape.architecture != "falcon":
        # Values are a view of the fused product, which is kept whole.
        rotated = query + kv if shape.rotary_share else 0.0
        total += element * (query + 2 * kv + rotated)
    else:
        total += element * (query + 2 * kv)
    copies = 2 if (is_rotated_by_parts or shape.attention_sinks) and _keeps_input(case, [output]) else 1
    return total + element * query * copies + _dropped(case, [output], query)


def _eager_attention(case: _Case, query: float, output: Projection) -> float:
    shape, element = case.shape, case.element
    per_score = _per_score(case)
    if shape.attention_softcap:
        per_score += element
    scores = per_score * case.eager_length * shape.num_heads / case.tensor_parallel
    kept_output = element * query if _keeps_input(case, [output]) else 0.0
    if shape.fused_qkv and shape.rotary_share and shape.num_heads == shape.num_kv_heads:
        kept_output += 2 * element * query  # values are a view of the fused product
    return scores + 3 * element * query + kept_output + _dropped(case, [output], query)


def _per_score(case: _Case) -> float:
    in_fp32, in_dtype = _EAGER_SCORES.get(case.shape.architecture, _LLAMA_SCORES)
    eager = _FP32 * in_fp32 + (case.element * in_dtype if case.element != _FP32 else _FP32 * (not in_fp32))
    # Compiled: the probabilities, which values are multiplied with, and the scores, of which fp32 is made again.
    return min(eager, 2 * case.element) if case.compiled else eager


def _qk_norms(case: _Case, query: float, kv: float) -> float:
    shape, element = case.shape, case.element
    if not shape.qk_norm:
        return 0.0
    if case.compiled:
        return element * (query + kv)
    weighted = _FP32 if shape.norm_in_fp32 else element
    per_norm = (query + kv) * (_FP32 + (weighted if case.trains_weights else 0))
    heads = (shape.num_heads + shape.num_kv_heads) / case.tensor_parallel if shape.qk_norm == "head" else 2
    return per_norm + _FP32 * heads


def _mlp(case: _Case) -> float:
    shape = case.shape
    size = shape.dense_intermediate_size if shape.num_experts else shape.intermediate_size
    matrices = [p for p in shape.projections if p.kind == "mlp" and "expert" not in p.name]
    into, down = matrices[:-1], matrices[-1:]
    total = _adapter_states(case, matrices)
    if not (shape.parallel_residual and shape.norms_per_layer == 1 and _keeps_attention_input(case)):
        total += _input(case, into, shape.hidden_size)
    return total + _nonlinear(case, size / case.tensor_parallel, down)


def _nonlinear(case: _Case, size: float, down: list[Projection]) -> float:
    """Between the matrices of an MLP of `size`, and the input of the last one. Bytes per token."""
    shape, element = case.shape, case.element
    product = 1 if case.trains_weights or (_reached(case, down) and not case.dropout) else 0
    if shape.gated_mlp:
        inner = 2 if case.compiled else 3
    elif shape.activation == "relu":
        # Its output is all it needs, the same tensor that the next matrix reads.
        inner, product = 1, 0
    else:
        inner = 1
    return element * size * (inner + product) + _dropped(case, down, size)


def _moe(case: _Case) -> float:
    shape, element, split = case.shape, case.element, case.tensor_parallel
    visits, hidden = shape.experts_per_token, shape.hidden_size
    experts = [p for p in shape.projections if p.is_fused_expert]
    size = shape.intermediate_size / split
    shared = [p for p in shape.projections if p.name.startswith("shared_expert.")]
    # One input for the router, which no adapter reaches, and the shared expert.
    total = element * hidden if case.trains_weights else _input(case, shared[:-1], hidden)
    total += _FP32 * shape.num_experts + 8 * visits * 5
    gathered = element * hidden * visits
    product = 1 if _keeps_input(case, experts[-1:]) else 0
    between = 6 if shape.activation == "gpt_oss" else 2 if case.compiled else 3
    inner = element * size * visits * (between + product)
    total += inner + gathered + (gathered if _keeps_input(case, experts[:1]) else 0)
    total += case.rank * element * visits * len(experts) if _reached(case, experts) else 0
    if shape.shared_intermediate_size:
        total += _nonlinear(case, shape.shared_intermediate_size / split, shared[-1:]) + _adapter_states(case, shared)
        total += element * hidden if shape.shared_expert_gate else 0
    return total


def _reached(case: _Case, matrices: list[Projection]) -> list[Projection]:
    """Those with an adapter."""
    if case.trains_weights or not case.rank:
        return []
    return [p for p in matrices if "all" in case.targets or p.name in case.targets]


def _keeps_input(case: _Case, matrices: list[Projection]) -> bool:
    return case.trains_weights or bool(_reached(case, matrices))


def _keeps_attention_input(case: _Case) -> bool:
    return _keeps_input(case, [p for p in case.shape.projections if p.kind == "attention"][:-1])


def _input(case: _Case, matrices: list[Projection], size: float) -> float:
    """What several matrices read, kept once if any needs it; with dropout each adapter keeps its own."""
    dropped = _dropped(case, matrices, size)
    return dropped + (case.element * size if case.trains_weights or (not dropped and _reached(case, matrices)) else 0.0)


def _dropped(case: _Case, matrices: list[Projection], size: float) -> float:
    """Dropped copies and their masks (one byte an element)."""
    return len(_reached(case, matrices)) * (case.element + 1) * size if case.dropout else 0.0


def _adapter_states(case: _Case, matrices: list[Projection]) -> float:
    return case.element * case.rank * len(_reached(case, matrices))


def _selected(case: _Case, is_moe: bool) -> LayerBytes:
    """Selective checkpointing: the layer's input, attention's output, every second matrix product."""
    shape, element, split = case.shape, case.element, case.tensor_parallel
    kept = {"attention": element * shape.query_size / split + _LOG_SUM_BYTES * shape.num_heads / split, "mlp": 0.0}
    index = 0
    for projection in shape.projections:
        if projection.kind == "router" or (projection.is_fused_expert != is_moe and projection.kind == "mlp"):
            continue
        width = projection.outputs * projection.active
        products = [width]
        if _reached(case, [projection]):
            products += [case.rank * projection.active, width]
        for size in products:
            if index % 2 == 0:
                is_row = projection.outputs == shape.hidden_size
                kept[projection.kind] += element * (size if is_row else size / split)
            index += 1
    full = _layer(case, is_moe)
    return LayerBytes(
        min(kept["attention"], full.attention), min(kept["mlp"], full.mlp), 0.0, float(element * shape.hidden_size)
    )
