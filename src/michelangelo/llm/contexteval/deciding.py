"""What a gate is: it sees what was found, and says whether the corpus answers the question. Protocol and data only.

A gate never sees generated text, and no text of a document but through the scores of the retrieval: what a document
says ("ignore the instructions") cannot argue with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from michelangelo.llm.contexteval.retrieval import Retrieval

__all__ = ["Decision", "Gate"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a gate decided, and by what. answer: `score >= threshold`, and nothing else forbade it (see reason).

    risk: the share of false answers that was promised when the threshold was fitted, with `confidence`; None: nothing
    was promised. gate: the gate's name and version, or the digest of its calibration. features: what the score is made
    of. reason: one sentence where something beside the score decided; else empty.
    """

    answer: bool
    score: float
    threshold: float
    gate: str
    features: Mapping[str, float] = field(default_factory=dict)
    risk: float | None = None
    confidence: float | None = None
    reason: str = ""


@runtime_checkable
class Gate(Protocol):
    """Decides one question. Pure: the same retrieval gives the same decision. Raises CalibrationError when it was
    fitted for another corpus or embedder and cannot promise anything here."""

    def decide(self, question: str, retrieval: Retrieval) -> Decision: ...
