"""From labelled questions to a gate: weights by one part of them, the threshold and its promise by another.

The weights may be as clever or as poor as they like: what is promised rests on the calibration split alone, which
they have never seen. Weights are not negative, so that more similarity, or more of the question's words, never turns an
answer into a refusal. Retrieval is the caller's; `evaluation` measures what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.contexteval import features, questions, risk
from michelangelo.llm.contexteval.gate import FittedGate, Promise, Weight
from michelangelo.llm.contexteval.questions import Question
from michelangelo.llm.contexteval.retrieval import Retrieval

__all__ = ["Example", "Goal", "Score", "calibrate", "examples", "fit_score", "fit_threshold", "is_right"]

_PENALTY: Final = 0.01
_LEAST: Final = 10
"""Of answerable and of other questions that weights can be fitted from: with fewer they are noise."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be promised. rate: see `risk`. share_for_weights: of the questions; the rest is for the threshold.
    names: of the features, `features.BASELINE` for a mere cosine cut-off. salt: another one gives another split."""

    risk: float = 0.05
    confidence: float = 0.95
    rate: risk.Rate = "unanswerable"
    guarantee: risk.Guarantee = "confidence"
    share_for_weights: float = 0.35
    names: tuple[str, ...] = features.NAMES
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A question and what was found for it. is_right: an answer from the first passage would be right; see
    `is_right`."""

    question: Question
    values: dict[str, float]
    is_right: bool

    @property
    def is_answerable(self) -> bool:
        return self.question.is_answerable


@dataclass(frozen=True, slots=True)
class Score:
    """Weights without a threshold."""

    weights: tuple[Weight, ...]
    bias: float
    details: dict[str, Any] = field(default_factory=dict)

    def of(self, rows: Sequence[Example]) -> npt.NDArray[np.float64]:
        """One score per example, 0 … 1."""
        values = features.matrix([row.values for row in rows], [one.feature for one in self.weights])
        return _sigmoid(
            self.bias + _standardized(values, self.weights) @ np.array([one.weight for one in self.weights])
        )


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
    return any(question.is_supported_by(passage.text) for passage in retrieval.passages[:3])


def calibrate(rows: Sequence[Example], goal: Goal, *, embedder: str, corpus_digest: str) -> FittedGate:
    """Split, fit, promise. Raises CalibrationError where the questions cannot support the promise."""
    risk.check_level(goal.risk, goal.confidence)
    first, second = _split(rows, goal)
    score = fit_score(first, goal.names)
    threshold = fit_threshold(score.of(second), second, goal, design=score.of(first))
    answered = score.of(second) >= threshold.value
    answerable = np.array([row.is_answerable for row in second])
    return FittedGate(
        weights=score.weights,
        bias=score.bias,
        threshold=threshold.value,
        promise=Promise(
            goal.rate,
            goal.risk,
            goal.confidence,
            goal.guarantee,
            threshold.questions,
            threshold.errors,
            threshold.bound,
        ),
        embedder=embedder,
        corpus_digest=corpus_digest,
        coverage=float(answered[answerable].mean()) if answerable.any() else 0.0,
        fitted_on=tuple(questions.digest(row.question) for row in first),
        calibrated_on=tuple(questions.digest(row.question) for row in second),
        details={"questions_for_weights": len(first), "questions_for_threshold": len(second)},
    )


def fit_score(rows: Sequence[Example], names: Sequence[str] = features.NAMES) -> Score:
    """Logistic regression of "is answerable" with weights that are not negative (L-BFGS-B, a light ridge), both labels
    of equal weight. Raises CalibrationError with too few questions of either."""
    from scipy import optimize

    if unknown := [name for name in names if name not in features.NAMES]:
        raise errors.CalibrationError(
            f"no feature is called {', '.join(unknown)}: choose of {', '.join(features.NAMES)}"
        )
    labels = np.array([float(row.is_answerable) for row in rows])
    if min(positive := int(labels.sum()), len(labels) - positive) < _LEAST:
        raise errors.CalibrationError(
            f"weights need {_LEAST} answerable and {_LEAST} other questions, and their split has {positive} and "
            f"{len(labels) - positive}: label more"
        )
    values = features.matrix([row.values for row in rows], names)
    centers, scales = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-3)
    inputs = (values - centers) / scales
    balance = np.where(labels == 1.0, 0.5 / positive, 0.5 / (len(labels) - positive))

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, bias = parameters[:-1], parameters[-1]
        logits = inputs @ weights + bias
        errors_ = balance * (_sigmoid(logits) - labels)
        value = float(balance @ (np.logaddexp(0.0, logits) - labels * logits)) + 0.5 * _PENALTY * float(
            weights @ weights
        )
        return value, np.append(inputs.T @ errors_ + _PENALTY * weights, errors_.sum())

    start = np.append(np.full(len(names), 0.1), 0.0)
    bounds = [(0.0, None)] * len(names) + [(None, None)]
    found = optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    weights = tuple(
        Weight(name, float(weight), float(center), float(scale))
        for name, weight, center, scale in zip(names, found, centers, scales, strict=False)
    )
    return Score(weights, float(found[-1]))


def fit_threshold(
    scores: npt.NDArray[np.float64], rows: Sequence[Example], goal: Goal, *, design: npt.NDArray[np.float64]
) -> risk.Threshold:
    """Of the calibration split's scores. design: scores of other questions, that choose which thresholds are tested."""
    answerable = np.array([row.is_answerable for row in rows])
    if goal.rate == "unanswerable":
        return risk.unanswerable_threshold(
            scores[~answerable], risk=goal.risk, confidence=goal.confidence, guarantee=goal.guarantee
        )
    if goal.guarantee != "confidence":
        raise errors.CalibrationError(
            "the share of wrong answers among those given can only be promised with confidence"
        )
    wrong = np.array([not row.is_right for row in rows])
    thresholds = risk.sequence(design, len(rows), risk=goal.risk, confidence=goal.confidence)
    return risk.answered_threshold(scores, wrong, thresholds, risk=goal.risk, confidence=goal.confidence)


def _split(rows: Sequence[Example], goal: Goal) -> tuple[list[Example], list[Example]]:
    if not 0.0 < goal.share_for_weights < 1.0:
        raise errors.CalibrationError(f"share_for_weights {goal.share_for_weights:g} must lie between 0 and 1")
    chosen, _ = questions.split([row.question for row in rows], goal.share_for_weights, salt=goal.salt)
    ids = {question.id for question in chosen}
    return [row for row in rows if row.question.id in ids], [row for row in rows if row.question.id not in ids]


def _standardized(values: npt.NDArray[np.float64], weights: Sequence[Weight]) -> npt.NDArray[np.float64]:
    return (values - np.array([one.center for one in weights])) / np.array([one.scale for one in weights])


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy import special

    return np.asarray(special.expit(logits), dtype=np.float64)
