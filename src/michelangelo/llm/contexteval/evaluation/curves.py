"""Risk against coverage, and what is read off it. Arrays only: scores, and whether an answer would be right.

coverage: share of all questions that is answered. risk: share of the answers that is wrong; an answer to a question
that the corpus does not answer is wrong. AURC: the area under risk over coverage (Geifman and El-Yaniv 2017), smaller
is better; its least possible value, with all right answers first, is given beside it, as no score can do better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Bin", "Curve", "coverage_at", "curve", "reliability"]

_Floats: TypeAlias = npt.NDArray[np.float64]
_Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Curve:
    """One point per threshold, strictest first. aurc: of the score; best_aurc: of a perfect one with as many right
    answers; random_aurc: of one that knows nothing."""

    coverage: _Floats
    risk: _Floats
    thresholds: _Floats
    aurc: float
    best_aurc: float
    random_aurc: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Questions whose scores lie between low and high: how many, their mean score, and the share that is answerable."""

    low: float
    high: float
    questions: int
    score: float
    share: float


def curve(scores: _Floats, is_right: _Bools) -> Curve:
    """Questions of equal score are answered together. Raises ValueError with no question."""
    if len(scores) == 0:
        raise ValueError("a curve needs at least one question")
    order = np.argsort(-scores, kind="stable")
    ordered, wrong = scores[order], np.cumsum(~is_right[order])
    counts = np.arange(1, len(scores) + 1)
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    risk = wrong[is_last] / counts[is_last]
    return Curve(
        coverage=counts[is_last] / len(scores),
        risk=risk,
        thresholds=ordered[is_last],
        aurc=_aurc(risk, np.diff(counts[is_last], prepend=0)),
        best_aurc=_aurc(np.cumsum(~np.sort(is_right)[::-1]) / counts, np.ones(len(scores))),
        random_aurc=float((~is_right).mean()),
    )


def coverage_at(found: Curve, risk: float) -> float:
    """The largest coverage at which the risk is at most `risk`; 0 when there is none. Read off the same questions that
    it is told of, so it is what the score could do, and promises nothing."""
    fine = found.risk <= risk
    return float(found.coverage[fine].max()) if fine.any() else 0.0


def reliability(scores: _Floats, answerable: _Bools, *, bins: int = 10) -> list[Bin]:
    """Bins of equal width between 0 and 1, empty ones left out: a score says how likely a question is answerable, of a
    set with as many answerable as other questions."""
    which = np.clip((scores * bins).astype(int), 0, bins - 1)
    return [
        Bin(i / bins, (i + 1) / bins, int(chosen.sum()), float(scores[chosen].mean()), float(answerable[chosen].mean()))
        for i in range(bins)
        if (chosen := which == i).any()
    ]


def _aurc(risk: _Floats, weights: npt.NDArray[np.generic]) -> float:
    return float(np.average(risk, weights=weights))
