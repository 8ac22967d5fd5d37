"""An answer, and everything it rests on. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from michelangelo.llm.contexteval.claims import Check
from michelangelo.llm.contexteval.deciding import Decision
from michelangelo.llm.contexteval.retrieval import Retrieval

__all__ = ["NOT_IN_CORPUS", "Answer", "Citation", "Claim"]

NOT_IN_CORPUS: Final = "Not in corpus"
"""The whole answer, letter by letter, where there is none."""


@dataclass(frozen=True, slots=True)
class Citation:
    """quote is characters `start:end` of the document's extracted text. number: as in the answer's [number]."""

    number: int
    document: str
    section: tuple[str, ...]
    start: int
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of an answer, the numbers of its citations, and how it was checked against them."""

    text: str
    citations: tuple[int, ...]
    check: Check


@dataclass(frozen=True, slots=True)
class Answer:
    """text: the claims with their citations' numbers, or NOT_IN_CORPUS. removed: claims that were generated and are not
    supported. reason: why there is no answer. by: "extractive", or the engine's name. warnings: what else is to be
    known, such as passages that were not used because they give instructions. timings: seconds per step."""

    question: str
    text: str
    claims: tuple[Claim, ...]
    citations: tuple[Citation, ...]
    removed: tuple[Claim, ...]
    decision: Decision
    retrieval: Retrieval
    by: str
    reason: str = ""
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_answered(self) -> bool:
        return self.text != NOT_IN_CORPUS

    @property
    def corpus_digest(self) -> str:
        return self.retrieval.corpus_digest

    def to_dict(self) -> dict[str, Any]:
        """For JSON; of the retrieval what says where to look."""
        return {
            "question": self.question,
            "answer": self.text,
            "answered": self.is_answered,
            "reason": self.reason,
            "by": self.by,
            "claims": [_claim(one) for one in self.claims],
            "citations": [asdict(one) for one in self.citations],
            "removed": [_claim(one) for one in self.removed],
            "decision": {**asdict(self.decision), "features": dict(self.decision.features)},
            "passages": [
                {
                    "document": one.document,
                    "section": list(one.section),
                    "start": one.start,
                    "end": one.end,
                    "score": one.score,
                    "cosine": one.cosine,
                    "bm25": one.bm25,
                    "coverage": one.coverage,
                    "copies": list(one.copies),
                }
                for one in self.retrieval.passages
            ],
            "warnings": list(self.warnings),
            "corpus": {
                "digest": self.corpus_digest,
                "embedder": self.retrieval.embedder,
                "chunks": self.retrieval.num_chunks,
            },
            "timings": {name: round(seconds, 6) for name, seconds in self.timings.items()},
        }


def _claim(claim: Claim) -> dict[str, Any]:
    return {
        "text": claim.text,
        "citations": list(claim.citations),
        "supported": claim.check.is_supported,
        "coverage": claim.check.coverage,
        "similarity": claim.check.similarity,
        "problems": list(claim.check.problems),
    }
