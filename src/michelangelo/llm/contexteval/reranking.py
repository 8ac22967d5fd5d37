"""What a chunk has of a question: covered terms, how close they stand, anchors, sentences. The light reranker.

It reads a few dozen chunks per question, and knows no index. Coverage is the share of the question's information (idf)
that the text has; proximity follows the smallest window over the covered terms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.contexteval import words
from michelangelo.llm.contexteval.chunks import heading_text
from michelangelo.llm.contexteval.corpus import ChunkView
from michelangelo.llm.contexteval.retrieval import Sentence, Term

__all__ = ["WEIGHTS", "Evidence", "read", "score", "sentences"]

WEIGHTS: Final[Mapping[str, float]] = {"cosine": 0.45, "coverage": 0.25, "proximity": 0.1, "anchors": 0.1, "bm25": 0.1}
"""Of the parts of a passage's score; they add up to 1. Chosen by hand, and what the gate fits sees the parts."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """See `retrieval.Passage`."""

    coverage: float
    proximity: float
    anchors: tuple[str, ...]


def read(chunk: ChunkView, terms: Sequence[Term], anchors: Sequence[str], analyzer: words.Analyzer) -> Evidence:
    """`terms` and `anchors` are the question's."""
    weights = {term.stem: term.idf for term in terms}
    total = sum(weights.values())
    found = analyzer.places(chunk.text, weights)
    above = heading_text(chunk.section, "")
    covered = {stem for _, _, stem in found} | (set(analyzer.stems(above)) & weights.keys())
    whole = f"{above}\n{chunk.text}"
    return Evidence(
        sum(weights[stem] for stem in covered) / total if total else 0.0,
        _proximity([stem for _, _, stem in found], [start for start, _, _ in found]),
        tuple(anchor for anchor in anchors if words.has_anchor(whole, anchor)),
    )


def sentences(chunk: ChunkView, terms: Sequence[Term], analyzer: words.Analyzer) -> tuple[Sentence, ...]:
    """All of them, with what each has of the question's terms."""
    weights = {term.stem: term.idf for term in terms}
    total = sum(weights.values())
    found = analyzer.places(chunk.text, weights)
    made = []
    for start, end in words.sentences(chunk.text):
        inside = {stem for begin, stop, stem in found if begin >= start and stop <= end}
        share = sum(weights[stem] for stem in inside) / total if total else 0.0
        made.append(Sentence(chunk.text[start:end], chunk.start + start, chunk.start + end, share))
    return tuple(made)


def score(*, cosine: float, bm25_share: float, evidence: Evidence, num_anchors: int) -> float:
    """0 … 1. bm25_share: of the ranking's best. Without anchors in the question, their weight is the others'."""
    parts = {
        "cosine": max(cosine, 0.0),
        "coverage": evidence.coverage,
        "proximity": evidence.proximity,
        "bm25": bm25_share,
    }
    if num_anchors:
        parts["anchors"] = len(evidence.anchors) / num_anchors
    return sum(WEIGHTS[name] * value for name, value in parts.items()) / sum(WEIGHTS[name] for name in parts)


def _proximity(stems: Sequence[str], positions: Sequence[int]) -> float:
    """1 when the smallest window with every covered term is as short as six characters a term; falls as it grows. With
    one term it is 0: nothing is close to anything."""
    wanted = len(set(stems))
    if wanted < 2:
        return 0.0
    have: Counter[str] = Counter()
    best, left = positions[-1] - positions[0] + 1, 0
    for right, stem in enumerate(stems):
        have[stem] += 1
        while len(have) == wanted:
            best = min(best, positions[right] - positions[left] + 1)
            have[stems[left]] -= 1
            if not have[stems[left]]:
                del have[stems[left]]
            left += 1
    return min(1.0, 6.0 * wanted / best)
