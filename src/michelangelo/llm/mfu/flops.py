"""Floating-point operations per trained token, in closed form, by every convention that is in use.

A multiply-add is two operations. Norms, activations, softmax and the optimizer are left out, as everybody does; so is
the embedding lookup, which multiplies nothing. It knows no hardware.

Sources: 2 per weight and pass, hence 6N: Kaplan et al. 2020 (arXiv 2001.08361, section 2.1); attention's 12 L h S: PaLM
(Chowdhery et al. 2022, arXiv 2204.02311, appendix B); half of it where causal, and LoRA's share: NeMo AutoModel
(docs/performance-summary); model FLOPs without, hardware FLOPs with recomputation: PaLM and Korthikanti et al. 2022
(arXiv 2205.05198).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["CONVENTIONS", "HEADLINE", "Convention", "Flops", "attended_tokens", "of_documents", "per_token"]

Convention: TypeAlias = Literal["causal", "non_causal", "matmul", "hardware"]
CONVENTIONS: Final[tuple[Convention, ...]] = ("causal", "non_causal", "matmul", "hardware")
HEADLINE: Final[Convention] = "causal"
"""What is printed as MFU where one number is asked for: only scores that are used count, as NeMo has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Per token of a step: forward, backward, and what checkpointing computes again."""

    matmul_forward: float
    """2 per weight that the token is multiplied with."""
    attention_forward: float
    """Scores and their sum over values, of the tokens that are looked back on only."""
    attention_forward_full: float
    """The same as if each token looked at all of the sequence."""
    lora_forward: float
    """Of the adapters."""
    is_adapter: bool
    """Weights are frozen: no gradients of them are computed."""
    recompute_matmul: float
    """Matrix products that checkpointing computes again."""
    recompute_attention: float

    @property
    def matmul(self) -> float:
        """6N; 4N and 6 per adapter weight where the weights are frozen. No attention scores."""
        return self.matmul_forward * (2 if self.is_adapter else 3) + 3 * self.lora_forward

    @property
    def causal(self) -> float:
        """The headline: forward and backward, attention counted as far as tokens look back."""
        return self.matmul + 3 * self.attention_forward

    @property
    def non_causal(self) -> float:
        """6N + 12 L h S: attention as if nothing were masked (PaLM, torchtitan)."""
        return self.matmul + 3 * self.attention_forward_full

    @property
    def hardware(self) -> float:
        """Causal, and what is computed twice: the numerator of HFU."""
        return self.causal + self.recompute_matmul + self.recompute_attention

    @property
    def forward(self) -> float:
        """One forward pass (causal)."""
        return self.matmul_forward + self.lora_forward + self.attention_forward

    def by(self, convention: Convention) -> float:
        """The count of one of CONVENTIONS."""
        value: float = getattr(self, convention)
        return value


def per_token(shape: ModelShape, *, sequence_length: int, setup: TrainingSetup) -> Flops:
    """Averaged over a full sequence of one document; `of_documents` for packed shorter ones.

    DPO runs each token through the policy (forward and backward) and the reference (forward).
    """
    return _flops(shape, setup, _mean_attended(shape, sequence_length), float(sequence_length))


def of_documents(shape: ModelShape, *, lengths: Sequence[int], sequence_length: int, setup: TrainingSetup) -> Flops:
    """Of sequences packed with documents of these lengths, which don't see each other."""
    total = sum(lengths)
    if total <= 0:
        raise ValueError("no document has a token")
    attended = sum(_mean_attended(shape, length) * length for length in lengths) / total
    return _flops(shape, setup, attended, float(sequence_length))


def attended_tokens(length: int, window: int = 0) -> float:
    """How many tokens a token looks at on average, itself included, in a causal document of `length`; a window of 0 is
    none. The usual S / 2 is (S + 1) / 2 here."""
    if not window or window >= length:
        return (length + 1) / 2
    return window * (window + 1) / 2 / length + window * (length - window) / length


def _mean_attended(shape: ModelShape, length: int) -> float:
    """Averaged over layers, of which some look back a window only."""
    far = shape.num_layers - (shape.num_sliding_layers if shape.sliding_window else 0)
    near = shape.num_layers - far
    return (far * attended_tokens(length) + near * attended_tokens(length, shape.sliding_window)) / shape.num_layers


def _flops(shape: ModelShape, setup: TrainingSetup, attended: float, full: float) -> Flops:
    matmul = 2.0 * shape.active_matmul_parameters
    scores = 4.0 * shape.num_layers * shape.query_size
    lora = 2.0 * _active_lora(shape, setup) if setup.method != "full" else 0.0
    head = 2.0 * shape.vocab_size * shape.hidden_size
    reference = 4 / 3 if setup.asks_reference else 1.0
    again = _recomputed(shape, setup)
    return Flops(
        matmul_forward=matmul * (1.5 if setup.asks_reference and setup.method != "full" else reference),
        attention_forward=scores * attended * reference,
        attention_forward_full=scores * full * reference,
        lora_forward=lora,
        is_adapter=setup.method != "full",
        recompute_matmul=(matmul + lora - head) * again[0],
        recompute_attention=scores * attended * again[1],
    )


def _active_lora(shape: ModelShape, setup: TrainingSetup) -> int:
    return sum(
        setup.lora_rank * (p.inputs + p.outputs) * p.layers * p.active
        for p in shape.lora_projections(setup.lora_targets)
    )


def _recomputed(shape: ModelShape, setup: TrainingSetup) -> tuple[float, float]:
    """Shares of a layer's matrix products and of attention that are computed again. The last product of a layer is not:
    nothing reads its output on the way back (an expert's is read, by its weight). Selective checkpointing keeps the
    outputs of attention and of every second matrix product (see planner.activations)."""
    if setup.checkpointing == "none":
        return 0.0, 0.0
    inner = sum(p.weights * p.layers * p.active for p in shape.projections)
    last = 0 if shape.num_experts else shape.projections[-1].weights * shape.num_layers
    if setup.checkpointing == "full":
        return 1.0 - last / inner, 1.0
    kept = sum(p.weights * p.layers * p.active for p in shape.projections[::2])
    return max(0.0, 1.0 - kept / inner), 0.0
