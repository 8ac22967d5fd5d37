"""What a gate did with labelled questions, as numbers with intervals, beside a fixed cosine cut-off.

    false answers     answered although the corpus does not answer, of those that it does not answer
    wrong answers     of the answers given, those that are false, or taken from passages without the labelled quote
    refusals          precision: of the refusals, those that were right to refuse. recall: of what should be refused,
                      what was

Numbers of questions that the gate has seen are no evidence: leave those out first. Nothing is asked here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from michelangelo.llm.contexteval import features, risk
from michelangelo.llm.contexteval.calibration import Example, Rows
from michelangelo.llm.contexteval.evaluation import bootstrap, curves
from michelangelo.llm.contexteval.gate import FittedGate

__all__ = ["NAMES", "Measures", "Table", "measure", "table"]

NAMES: Final[Mapping[str, str]] = {
    "false_answer_rate": "unanswerable questions that were answered",
    "false_answer_rate_near_miss": "the same, near misses only",
    "false_answer_rate_other": "the same, the others only",
    "wrong_among_answered": "answers that are wrong, of those given",
    "coverage_answerable": "answerable questions that were answered",
    "coverage": "all questions that were answered",
    "refusal_precision": "refusals that were right",
    "refusal_recall": "unanswerable questions that were refused",
    "right_passage": "answerable questions whose quote is in the first three passages",
    "aurc": "area under the risk-coverage curve",
    "coverage_at_1": "coverage at 1 % wrong answers, at best",
    "coverage_at_5": "coverage at 5 % wrong answers, at best",
    "answerable_at_1": "answerable questions answered at 1 % false answers, at best",
    "answerable_at_5": "answerable questions answered at 5 % false answers, at best",
}
"""What is measured, each a share; "at best": by the threshold that suits these very questions."""


@dataclass(frozen=True, slots=True)
class Table:
    """One row per question, as arrays. labels: as in the file; scores: the gate's."""

    scores: npt.NDArray[np.float64]
    is_answered: npt.NDArray[np.bool_]
    is_right: npt.NDArray[np.bool_]
    is_answerable: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Measures:
    """values and intervals by the names of `NAMES`; a value is NaN where nothing could be measured. false_answers:
    how many, of how many unanswerable; bounds: the exact 95 % interval of that rate. curve, bins: for plots."""

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    questions: Mapping[str, int]
    false_answers: tuple[int, int]
    bounds: tuple[float, float]
    curve: curves.Curve
    bins: Sequence[curves.Bin]


def table(asked: Sequence[Example], gate: FittedGate | None, *, cutoff: float = math.inf) -> Table:
    """What the gate does with each. None: what a cosine cut-off does."""
    rows = Rows.of(asked)
    if gate is None:
        scores, threshold = rows.columns(features.BASELINE)[:, 0], cutoff
    else:
        scores, threshold = np.array([gate.score(one.values) for one in asked], dtype=float), gate.threshold
    return Table(scores, scores >= threshold, rows.is_right, rows.is_answerable, rows.labels)


def measure(rows: Table, *, repetitions: int = 500, seed: int = 0) -> Measures:
    """Raises ValueError with no question."""
    unanswerable = ~rows.is_answerable
    false, total = int((rows.is_answered & unanswerable).sum()), int(unanswerable.sum())
    names, counts = np.unique(rows.labels, return_counts=True)
    return Measures(
        values=_values(rows, np.arange(len(rows.scores))),
        intervals=bootstrap.intervals(
            lambda drawn: _values(rows, drawn), rows.labels, repetitions=repetitions, seed=seed
        ),
        questions={str(name): int(count) for name, count in zip(names, counts, strict=True)},
        false_answers=(false, total),
        bounds=risk.interval(false, total) if total else (0.0, 1.0),
        curve=curves.curve(rows.scores, rows.is_right),
        bins=curves.reliability(np.clip(rows.scores, 0.0, 1.0), rows.is_answerable),
    )


def _values(rows: Table, drawn: npt.NDArray[np.intp]) -> dict[str, float]:
    answered, right, answerable = rows.is_answered[drawn], rows.is_right[drawn], rows.is_answerable[drawn]
    labels, scores = rows.labels[drawn], rows.scores[drawn]
    found = curves.curve(scores, right)
    return {
        "false_answer_rate": _share(answered, ~answerable),
        "false_answer_rate_near_miss": _share(answered, labels == "near-miss"),
        "false_answer_rate_other": _share(answered, labels == "unanswerable"),
        "wrong_among_answered": _share(~right, answered),
        "coverage_answerable": _share(answered, answerable),
        "coverage": float(answered.mean()),
        "refusal_precision": _share(~answerable, ~answered),
        "refusal_recall": _share(~answered, ~answerable),
        "right_passage": _share(right, answerable),
        "aurc": found.aurc,
        "coverage_at_1": curves.coverage_at(found, 0.01),
        "coverage_at_5": curves.coverage_at(found, 0.05),
        "answerable_at_1": _answerable_at(scores, answerable, 0.01),
        "answerable_at_5": _answerable_at(scores, answerable, 0.05),
    }


def _share(what: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float:
    count = int(among.sum())
    return float((what & among).sum() / count) if count else math.nan


def _answerable_at(scores: npt.NDArray[np.float64], answerable: npt.NDArray[np.bool_], rate: float) -> float:
    others = np.sort(scores[~answerable])[::-1]
    if not len(others) or not answerable.any():
        return math.nan
    allowed = math.floor(rate * len(others) + 1e-9)
    highest = others[allowed] if allowed < len(others) else -math.inf
    return float((scores[answerable] > highest).mean())
