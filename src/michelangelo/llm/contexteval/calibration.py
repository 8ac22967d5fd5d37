"""From labelled questions to a gate: weights by one part of them, the threshold and its promise by another.

The weights may be as clever or as poor as they like: what is promised rests on the calibration split alone, which
they have never seen. Weights are not negative, so that more similarity, or more of the question's words, never turns an
answer into a refusal. Retrieval is the caller's; `evaluation` measures what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.contexteval import features, questions, risk
from michelangelo.llm.contexteval.gate import FittedGate, Promise, Weight
from michelangelo.llm.contexteval.questions import Question
from michelangelo.llm.contexteval.retrieval import Retrieval
from michelangelo.llm.contexteval.risk import Guarantee, Rate

__all__ = [
    "Example",
    "Goal",
    "Rows",
    "Score",
    "calibrate",
    "check",
    "examples",
    "fit_score",
    "fit_threshold",
    "is_right",
]

_PENALTY: Final = 0.01
_LEAST: Final = 10
"""Of answerable and of other questions that weights can be fitted from: with fewer they are noise."""
_SOURCES: Final = 3
"""Passages from which an answer is made."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be promised. rate, guarantee: see `risk`. next_questions: what is measured on this many later
    unanswerable questions or more keeps the promise too, not only the true rate; 0: the true rate alone.
    share_for_weights: of the questions; the rest is for the threshold. names: of the features, `features.BASELINE` for
    a mere cosine cut-off. salt: another one gives another split."""

    risk: float = 0.05
    confidence: float = 0.95
    rate: Rate = "unanswerable"
    guarantee: Guarantee = "confidence"
    next_questions: int = 50
    share_for_weights: float = 0.35
    names: tuple[str, ...] = features.NAMES
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A question and what a gate sees of what was found. is_right: see `is_right`."""

    question: Question
    values: Mapping[str, float]
    is_right: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Examples as arrays, one row each. values: a column per feature, in the order of `features.NAMES`."""

    values: npt.NDArray[np.float64]
    is_answerable: npt.NDArray[np.bool_]
    is_right: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.str_]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Rows:
        """In their order."""
        return cls(
            features.matrix([one.values for one in examples], features.NAMES),
            np.array([one.question.is_answerable for one in examples], dtype=bool),
            np.array([one.is_right for one in examples], dtype=bool),
            np.array([one.question.label for one in examples], dtype=np.str_),
        )

    def take(self, which: npt.NDArray[Any]) -> Rows:
        """Some rows, by number or by a mask."""
        return Rows(self.values[which], self.is_answerable[which], self.is_right[which], self.labels[which])

    def columns(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Features by name."""
        return self.values[:, [features.NAMES.index(name) for name in names]]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Score:
    """Weights without a threshold."""

    weights: tuple[Weight, ...]
    bias: float

    def of(self, rows: Rows) -> npt.NDArray[np.float64]:
        """One score per row, 0 … 1."""
        values = rows.columns([one.feature for one in self.weights])
        centers, scales, weights = (
            np.array([getattr(one, name) for one in self.weights]) for name in ("center", "scale", "weight")
        )
        return _sigmoid(self.bias + ((values - centers) / scales) @ weights)


def examples(
    asked: Iterable[Question],
    retrieve: Callable[[str], Retrieval],
    *,
    report: Callable[[int], object] = lambda done: None,
) -> tuple[list[Example], list[Retrieval]]:
    """Ask all questions: what a gate sees of each, and what was found. `report` gets how many are done."""
    rows, found = [], []
    for number, question in enumerate(asked, start=1):
        retrieval = retrieve(question.text)
        rows.append(Example(question, features.compute(retrieval), is_right(question, retrieval)))
        found.append(retrieval)
        report(number)
    return rows, found


def is_right(question: Question, retrieval: Retrieval) -> bool:
    """Whether one of the first three passages, from which answers are made, holds a quote that answers the question.
    Never for a question that is not answerable."""
    return any(question.is_supported_by(passage.text) for passage in retrieval.passages[:_SOURCES])


def calibrate(asked: Sequence[Example], goal: Goal, *, embedder: str, corpus_digest: str) -> FittedGate:
    """Split, fit, promise. Raises CalibrationError where the questions cannot support the promise. details: the cosine
    cut-off with the same promise, from the same splits, to compare with."""
    if not 0.0 < goal.share_for_weights < 1.0:
        raise errors.CalibrationError(f"share_for_weights {goal.share_for_weights:g} must lie between 0 and 1")
    check([one.question for one in asked], goal)
    chosen, _ = _for_weights([one.question for one in asked], goal)
    ids = {question.id for question in chosen}
    for_weights = np.array([one.question.id in ids for one in asked], dtype=bool)
    rows = Rows.of(asked)
    first, second = rows.take(for_weights), rows.take(~for_weights)
    score, threshold, coverage = _fit(first, second, goal)
    try:
        cutoff, baseline = _cutoff(first, second, goal)
    except errors.CalibrationError:
        # Of rate "answered" a cosine cut-off can often promise nothing at all.
        cutoff, baseline = None, 0.0
    return FittedGate(
        weights=score.weights,
        bias=score.bias,
        threshold=threshold.value,
        promise=Promise(
            rate=goal.rate,
            risk=goal.risk,
            confidence=goal.confidence,
            guarantee=goal.guarantee,
            next_questions=goal.next_questions if goal.rate == "unanswerable" else 0,
            questions=threshold.questions,
            errors=threshold.errors,
            bound=threshold.bound,
        ),
        embedder=embedder,
        corpus_digest=corpus_digest,
        coverage=coverage,
        fitted_on=tuple(questions.digest(one.question) for one in asked if one.question.id in ids),
        calibrated_on=tuple(questions.digest(one.question) for one in asked if one.question.id not in ids),
        details={
            "questions_for_weights": len(first),
            "questions_for_threshold": len(second),
            "cosine_cutoff": cutoff,
            "cosine_coverage": baseline,
        },
    )


def check(asked: Sequence[Question], goal: Goal) -> None:
    """Before any question is asked: raises CalibrationError where their number alone cannot support the promise."""
    risk.check_level(goal.risk, goal.confidence)
    _, second = _for_weights(asked, goal)
    if goal.rate == "unanswerable":
        has = sum(not question.is_answerable for question in second)
        least = risk.needed(goal.risk, goal.confidence, guarantee=goal.guarantee, next_questions=goal.next_questions)
        what = "unanswerable questions"
    else:
        has, least, what = len(second), risk.needed(goal.risk, goal.confidence), "questions, all of them answered,"
    if has < least:
        more = round((least - has) / (1 - goal.share_for_weights)) + 1
        raise errors.CalibrationError(
            f"the split that fits the threshold has {has} {what} and {goal.risk:.1%} at {goal.confidence:.0%} "
            f"confidence takes at least {least}: label about {more} more, leave it a larger share (less for the "
            f"weights, --for-weights, or held out, --hold-out), or promise less (--risk, --confidence)"
        )


def fit_score(rows: Rows, names: Sequence[str] = features.NAMES) -> Score:
    """Logistic regression of "is answerable" with weights that are not negative (L-BFGS-B, a light ridge), both labels
    of equal weight. Raises CalibrationError with too few questions of either."""
    from scipy import optimize

    if unknown := [name for name in names if name not in features.NAMES]:
        known = ", ".join(features.NAMES)
        raise errors.CalibrationError(f"no feature is called {', '.join(unknown)}: choose of {known}")
    labels = rows.is_answerable.astype(float)
    if min(positive := int(labels.sum()), len(labels) - positive) < _LEAST:
        raise errors.CalibrationError(
            f"weights need {_LEAST} answerable and {_LEAST} other questions, and their split has {positive} and "
            f"{len(labels) - positive}: label more"
        )
    values = rows.columns(names)
    centers, scales = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-3)
    inputs = (values - centers) / scales
    balance = np.where(rows.is_answerable, 0.5 / positive, 0.5 / (len(labels) - positive))

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, bias = parameters[:-1], parameters[-1]
        logits = inputs @ weights + bias
        slopes = balance * (_sigmoid(logits) - labels)
        cost = float(balance @ (np.logaddexp(0.0, logits) - labels * logits))
        ridge = 0.5 * _PENALTY * float(weights @ weights)
        return cost + ridge, np.append(inputs.T @ slopes + _PENALTY * weights, slopes.sum())

    start = np.append(np.full(len(names), 0.1), 0.0)
    bounds = [(0.0, None)] * len(names) + [(None, None)]
    found = optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    weights = tuple(
        Weight(name, float(weight), float(center), float(scale))
        for name, weight, center, scale in zip(names, found, centers, scales, strict=False)
    )
    return Score(weights, float(found[-1]))


def fit_threshold(
    scores: npt.NDArray[np.float64], rows: Rows, goal: Goal, *, design: npt.NDArray[np.float64]
) -> risk.Threshold:
    """Of the calibration split's scores. design: scores of other questions, that choose which thresholds are tested."""
    if goal.rate == "unanswerable":
        return risk.unanswerable_threshold(
            scores[~rows.is_answerable],
            risk=goal.risk,
            confidence=goal.confidence,
            guarantee=goal.guarantee,
            next_questions=goal.next_questions,
        )
    if goal.guarantee != "confidence":
        raise errors.CalibrationError(
            "the share of wrong answers among those given can only be promised with confidence"
        )
    thresholds = risk.sequence(design, len(rows), risk=goal.risk, confidence=goal.confidence)
    return risk.answered_threshold(scores, ~rows.is_right, thresholds, risk=goal.risk, confidence=goal.confidence)


def _for_weights(asked: Sequence[Question], goal: Goal) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    # A salt of its own: the caller may have held out some with the plain one, and the same hash would not deal the
    # others at random.
    return questions.split(asked, goal.share_for_weights, salt=f"weights {goal.salt}")


def _fit(first: Rows, second: Rows, goal: Goal) -> tuple[Score, risk.Threshold, float]:
    """The last: which share of the answerable questions of `second` is answered."""
    score = fit_score(first, goal.names)
    scores = score.of(second)
    threshold = fit_threshold(scores, second, goal, design=score.of(first))
    answered = scores[second.is_answerable] >= threshold.value
    return score, threshold, float(answered.mean()) if len(answered) else 0.0


def _cutoff(first: Rows, second: Rows, goal: Goal) -> tuple[float, float]:
    """The cosine itself is the score: no weight is needed."""
    scores, design = (rows.columns(features.BASELINE)[:, 0] for rows in (second, first))
    threshold = fit_threshold(scores, second, replace(goal, names=features.BASELINE), design=design)
    answered = scores[second.is_answerable] >= threshold.value
    return threshold.value, float(answered.mean()) if len(answered) else 0.0


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy import special

    return np.asarray(special.expit(logits), dtype=np.float64)
