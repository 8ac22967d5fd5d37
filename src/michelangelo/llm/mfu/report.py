"""From a measured speed to utilisation, by every convention, so that numbers can be compared with anybody's.

MFU counts what a model needs; HFU also what checkpointing computes again. Neither counts dequantisation or kernels that
waste work. It measures nothing and knows no hardware: the peak is given.
"""

from __future__ import annotations

from dataclasses import dataclass

from michelangelo.llm.mfu import flops
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Utilisation", "report", "text"]

_LABELS = {
    "causal": "MFU, causal attention (headline)",
    "non_causal": "MFU, attention counted whole (PaLM, torchtitan)",
    "matmul": "MFU, matrix products only (6N)",
    "hardware": "HFU, causal, with recomputation",
}


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Shares of the peak, and what they were computed of."""

    tokens_per_second: float
    """Of one GPU."""
    peak_flops: float
    """Per second, of one GPU, dense, in the dtype of the matrix products."""
    counted: flops.Flops

    def share(self, convention: flops.Convention = flops.HEADLINE) -> float:
        """0 to 1."""
        return self.tokens_per_second * self.counted.by(convention) / self.peak_flops

    def to_dict(self) -> dict[str, float]:
        """`mfu` is the headline; the others by their convention; FLOPs are per token."""
        shares = {f"{name}_share": self.share(name) for name in flops.CONVENTIONS}
        counts = {f"{name}_flops_per_token": self.counted.by(name) for name in flops.CONVENTIONS}
        return {"mfu": self.share(), **shares, **counts}


def report(tokens_per_second: float, peak_flops: float, *, shape: ModelShape, setup: TrainingSetup) -> Utilisation:
    """tokens_per_second and peak_flops are of one GPU; padding counts as tokens where it is computed. Raises ValueError
    for a peak or a speed that is not positive."""
    if not peak_flops > 0 or not tokens_per_second >= 0:
        raise ValueError(f"a speed of {tokens_per_second} tokens/s at a peak of {peak_flops} FLOP/s is none")
    counted = flops.per_token(shape, sequence_length=setup.sequence_length, setup=setup)
    return Utilisation(tokens_per_second, peak_flops, counted)


def text(measured: Utilisation) -> str:
    """One line per convention."""
    return "\n".join(
        f"{label:<50} {measured.share(name):7.2%}  {measured.counted.by(name) / 1e9:8.2f} GFLOP/token"
        for name in flops.CONVENTIONS
        for label in (_LABELS[name],)
    )
