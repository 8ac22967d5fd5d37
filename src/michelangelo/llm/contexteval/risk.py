"""What can be promised from so many labelled questions: exact binomial bounds, and thresholds chosen under them.

Two rates, and they differ:

    unanswerable   of the questions that the corpus does not answer, the share that is answered all the same
    answered       of the questions that are answered, the share whose answer is wrong

The first does not depend on how many of the users' questions are answerable, so it carries over to another mixture; the
second does depend on it. Both promises are finite-sample and free of assumptions about the scores, as long as the
questions asked later come from where the labelled ones came from. Numbers only: no question, no feature, no file.

Sources: Clopper and Pearson 1934 (the bound); Wilks 1941 (an order statistic as a tolerance limit); Angelopoulos,
Bates, Candès, Jordan and Lei 2021, "Learn then Test" (fixed-sequence testing of thresholds); Angelopoulos, Bates,
Fisch, Lei and Schuster 2022, "Conformal Risk Control" (the bound on the mean).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from michelangelo import errors

__all__ = [
    "Guarantee",
    "Rate",
    "Threshold",
    "allowed_errors",
    "answered_threshold",
    "check_level",
    "interval",
    "lower_bound",
    "needed",
    "sequence",
    "unanswerable_threshold",
    "upper_bound",
]

Rate: TypeAlias = Literal["unanswerable", "answered"]
Guarantee: TypeAlias = Literal["confidence", "mean"]
"""confidence: with this probability over the labelled questions, the rate is at most the risk. mean: the rate is at
most the risk on average over the draws of labelled questions, which needs fewer of them and promises less."""
_Floats: TypeAlias = npt.NDArray[np.float64]
_MARGIN: Final = 1.25
"""How many more answered questions than the bare minimum the first threshold of a sequence should leave: with exactly
the minimum one wrong answer, or a few questions fewer by chance, ends the sequence before it begins."""
_ABOVE: Final = 1e-9
"""How far a threshold stands above the score that it refuses: more than the last digits that depend on how the same sum
was added up."""
_SIZES: Final = 20


@dataclass(frozen=True, slots=True)
class Threshold:
    """Answer when `score >= value`. questions: how many counted for the rate (unanswerable ones, or answered ones),
    errors: how many of them went wrong at this value. bound: the upper bound of the rate that this shows."""

    value: float
    questions: int
    errors: int
    bound: float


def upper_bound(num_errors: int | npt.ArrayLike, n: int | npt.ArrayLike, confidence: float) -> Any:
    """The one-sided Clopper-Pearson bound of a rate, 0 … 1; 1 where nothing was seen. Takes arrays too."""
    from scipy import stats

    k, size = np.asarray(num_errors, dtype=float), np.asarray(n, dtype=float)
    with np.errstate(invalid="ignore"):
        bound = np.where(k >= size, 1.0, stats.beta.ppf(confidence, k + 1, np.maximum(size - k, 1e-9)))
    return float(bound) if bound.ndim == 0 else bound


def lower_bound(num_errors: int | npt.ArrayLike, n: int | npt.ArrayLike, confidence: float) -> Any:
    """The one-sided lower Clopper-Pearson bound of a rate; 0 where nothing went wrong."""
    k, size = np.asarray(num_errors, dtype=float), np.asarray(n, dtype=float)
    bound = 1.0 - np.asarray(upper_bound(size - k, size, confidence))
    return float(bound) if bound.ndim == 0 else bound


def interval(num_errors: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided Clopper-Pearson interval."""
    side = 1.0 - (1.0 - confidence) / 2
    return float(lower_bound(num_errors, n, side)), float(upper_bound(num_errors, n, side))


def needed(
    risk: float,
    confidence: float,
    *,
    guarantee: Guarantee = "confidence",
    num_errors: int = 0,
    next_questions: int = 0,
) -> int:
    """The least number of questions from which the risk can be promised when `num_errors` of them go wrong.

    Without an error it is ln(1 − confidence) / ln(1 − risk): 299 for 1 % at 95 %, 59 for 5 %. Mean: 1 / risk − 1.
    next_questions: see `allowed_errors`.
    """
    check_level(risk, confidence)
    if guarantee == "mean":
        return max(1, math.ceil((num_errors + 1) / risk - 1 - 1e-9))

    def suffices(n: int) -> bool:
        return upper_bound(num_errors, n, confidence) <= risk and _held(num_errors, n, risk, confidence, next_questions)

    low, high = num_errors, num_errors + 1
    while not suffices(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=10_000)
def allowed_errors(
    n: int, risk: float, confidence: float, *, guarantee: Guarantee = "confidence", next_questions: int = 0
) -> int:
    """How many of n questions may go wrong with the risk still promised; −1: not even none.

    The bound is on the true rate. What is measured later on few questions also varies by chance, and a true rate just
    below the risk is measured above it about every second time. next_questions: with the same confidence the rate
    measured on that many later questions, or more, is at most the risk too; 0: only the true rate is.
    """
    check_level(risk, confidence)
    if guarantee == "mean":
        return math.floor(risk * (n + 1) + 1e-9) - 1
    bounds = np.asarray(upper_bound(np.arange(n + 1), np.full(n + 1, n), confidence))
    allowed = int(np.searchsorted(bounds, risk, side="right")) - 1
    while allowed >= 0 and not _held(allowed, n, risk, confidence, next_questions):
        allowed -= 1
    return allowed


def _held(num_errors: int, n: int, risk: float, confidence: float, next_questions: int) -> bool:
    """Whether later measurements keep the risk. The threshold is the score of rank num_errors + 1 among n, so of m more
    scores from the same distribution the number above it is beta-binomial(m, num_errors + 1, n − num_errors), whatever
    the distribution. Sizes are taken at which the risk is a whole number of questions; beyond some of them the true
    rate decides, which is bounded already."""
    if next_questions <= 0:
        return True
    from scipy import stats

    step = math.ceil(1.0 / risk)
    sizes = step * (math.ceil(next_questions / step) + np.arange(_SIZES))
    within = stats.betabinom.cdf(np.floor(risk * sizes + 1e-9), sizes, num_errors + 1, n - num_errors)
    return bool(within.min() >= confidence)


def unanswerable_threshold(
    scores: npt.ArrayLike,
    *,
    risk: float,
    confidence: float,
    guarantee: Guarantee = "confidence",
    next_questions: int = 0,
) -> Threshold:
    """The lowest threshold at which the share of answered unanswerable questions is promised to be at most `risk`.

    scores: of the unanswerable questions of the calibration split alone. The rate falls as the threshold rises, so the
    bound holds for all thresholds at once and an order statistic may be taken, at no price for having looked. Raises
    CalibrationError where there are too few questions, and says how many are needed. next_questions: see
    `allowed_errors`.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))[::-1]
    n = len(ordered)
    allowed = allowed_errors(n, risk, confidence, guarantee=guarantee, next_questions=next_questions)
    if allowed < 0:
        raise errors.CalibrationError(
            f"{n} unanswerable questions cannot support {_promise(risk, confidence, guarantee)}: at least "
            f"{needed(risk, confidence, guarantee=guarantee, next_questions=next_questions)} are needed. Label "
            "more, or promise less"
        )
    refused = float(ordered[min(allowed, n - 1)])
    value = refused + _ABOVE * max(1.0, abs(refused)) if allowed < n else refused
    wrong = int((ordered >= value).sum())
    bound = upper_bound(wrong, n, confidence) if guarantee == "confidence" else (wrong + 1) / (n + 1)
    return Threshold(value, n, wrong, float(bound))


def sequence(design_scores: npt.ArrayLike, n: int, *, risk: float, confidence: float, steps: int = 100) -> _Floats:
    """Thresholds to test in turn, strictest first, as `answered_threshold` takes them: chosen by the scores of other
    questions (those that the weights were fitted on), never of those that they are tested with.

    n: how many questions they will be tested with. The first one is where about enough of those will be answered to
    support the risk; a stricter one could not be proved however good it was. Empty: none can.
    """
    scores = np.sort(np.asarray(design_scores, dtype=float))[::-1]
    share = _MARGIN * needed(risk, confidence) / max(1, n)
    if share > 1.0 or len(scores) == 0:
        return np.empty(0)
    positions = np.linspace(share, 1.0, steps) * len(scores)
    return np.unique(scores[np.clip(np.ceil(positions).astype(int) - 1, 0, len(scores) - 1)])[::-1]


def answered_threshold(
    scores: npt.ArrayLike,
    is_wrong: npt.ArrayLike,
    thresholds: Sequence[float] | _Floats,
    *,
    risk: float,
    confidence: float,
) -> Threshold:
    """The lowest threshold at which the share of wrong answers among those given is promised to be at most `risk`.

    scores, is_wrong: of all questions of the calibration split; wrong means wrong if it were answered. thresholds: as
    `sequence` gives them. This rate need not fall as the threshold rises, so each threshold is a hypothesis ("the rate
    is above the risk") that an exact binomial test rejects or not; the first one that it does not reject ends the
    sequence, which is what makes one level enough for all. Raises CalibrationError where none can be promised.
    """
    from scipy import stats

    values, wrong = np.asarray(scores, dtype=float), np.asarray(is_wrong, dtype=bool)
    found: Threshold | None = None
    for threshold in thresholds:
        answered = values >= threshold
        n, k = int(answered.sum()), int((answered & wrong).sum())
        if n == 0 or stats.binom.cdf(k, n, risk) > 1.0 - confidence:
            break
        found = Threshold(float(threshold), n, k, float(upper_bound(k, n, confidence)))
    if found is None:
        minimum, with_one = (needed(risk, confidence, num_errors=k) for k in (0, 1))
        raise errors.CalibrationError(
            f"{_promise(risk, confidence, 'confidence')} among the answered cannot be shown with {len(values)} "
            f"questions: it takes {minimum} answers with none wrong, or {with_one} with one. "
            f"Label more questions, or promise less"
        )
    return found


def check_level(risk: float, confidence: float) -> None:
    """Raises CalibrationError unless both lie between 0 and 1, ends excluded."""
    for name, value in (("risk", risk), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise errors.CalibrationError(f"{name} {value:g} is no share: give one above 0 and below 1, such as 0.05")


def _promise(risk: float, confidence: float, guarantee: Guarantee) -> str:
    held = f"with {confidence:.0%} confidence" if guarantee == "confidence" else "on average"
    return f"a false-answer rate of at most {risk * 100:g} % {held}"
