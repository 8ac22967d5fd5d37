"""Does an answer mean the same as a reference? The cosine of their embeddings, by an engine that embeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from michelangelo.llm.scorer.engine import Completion, Request
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks.outcome import FieldProblem, Outcome, failed, known

__all__ = ["EMBEDDER", "Similarity", "cosine", "similarity"]

EMBEDDER: Final = "embedder"
"""The name of the engine that embeds."""
_MAX_CHARACTERS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Similarity:
    """Score: the largest cosine to one of `expected`, negative ones as 0; passed from `threshold` on."""

    expected: tuple[str, ...]
    threshold: float
    type: str = "similarity"
    engine: str = EMBEDDER

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        texts = (answer.text[:_MAX_CHARACTERS], *self.expected)
        return [Request(id="", prompt=text, task="embed") for text in texts]

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        if wrong := next((c.error or "it gave no vector" for c in completions if c.error or not c.embedding), ""):
            return failed(self.type, f"the embedder failed: {wrong}")
        vectors = [c.embedding or () for c in completions]
        try:
            score = max(cosine(vectors[0], other) for other in vectors[1:])
        except ValueError as e:
            return failed(self.type, f"the embedder failed: {e}")
        score = min(1.0, max(0.0, score))
        is_near = score >= self.threshold
        detail = "" if is_near else f"similarity {score:.3f} is under {self.threshold:g}"
        return Outcome(self.type, is_near, score, detail, is_graded=True)


def similarity(document: Mapping[str, Any]) -> Similarity:
    """From `expected` (a text or several) and `threshold` (0.8 if left out)."""
    known(document, "expected", "threshold")
    given = document.get("expected")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise FieldProblem("expected", "must be a text or a list of texts, none of them empty")
    threshold = document.get("threshold", 0.8)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise FieldProblem("threshold", "must be from 0 to 1")
    return Similarity(tuple(texts), float(threshold))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Raises ValueError for vectors of different lengths, of length zero, or with numbers that are not finite."""
    if len(one) != len(other):
        raise ValueError(f"vectors of {len(one)} and {len(other)} dimensions")
    size = math.sqrt(math.fsum(x * x for x in one)) * math.sqrt(math.fsum(x * x for x in other))
    if not 0 < size < math.inf:
        raise ValueError("a vector without a direction")
    return math.fsum(x * y for x, y in zip(one, other, strict=True)) / size
