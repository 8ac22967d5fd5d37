"""A gate for a corpus that has none fitted yet: a careful rule of thumb that promises nothing, and says so."""

from __future__ import annotations

from typing import Final

from michelangelo.llm.contexteval.deciding import Decision
from michelangelo.llm.contexteval.retrieval import Retrieval

__all__ = ["UnfittedGate"]

_THRESHOLD: Final = 0.7


class UnfittedGate:
    """score: the largest share of the question's information that one passage has (idf-weighted words), or 0 if the
    best passages lack one of the question's numbers, names or identifiers. Answers from 0.7 on."""

    def decide(self, question: str, retrieval: Retrieval) -> Decision:
        """Never promises a risk."""
        best = retrieval.passages[:3]
        coverage = max((one.coverage for one in best), default=0.0)
        found = {anchor for one in best for anchor in one.anchors}
        anchors = len(found) / len(retrieval.anchors) if retrieval.anchors else 1.0
        score = coverage if anchors == 1.0 else 0.0
        return Decision(
            answer=score >= _THRESHOLD,
            score=score,
            threshold=_THRESHOLD,
            gate="unfitted",
            features={"coverage": coverage, "anchors": anchors},
            reason="" if score >= _THRESHOLD else "the passages found lack words of the question (no gate is fitted)",
        )
