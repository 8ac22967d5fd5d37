"""The bounds are exact, and what is promised is kept: by arithmetic where there is one, by simulation where not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from michelangelo import errors
from michelangelo.llm.contexteval import risk

REPETITIONS = 600
"""The standard error of a share near 95 % is then 0.9 percentage points; tests allow three."""
SLACK = 3 * (0.95 * 0.05 / REPETITIONS) ** 0.5


@given(st.integers(1, 500), st.data(), st.floats(0.5, 0.999))
@settings(max_examples=60, deadline=None)
def test_upper_bound_is_where_so_few_errors_become_unlikely(n: int, data: st.DataObject, confidence: float) -> None:
    k = data.draw(st.integers(0, n - 1))
    bound = risk.upper_bound(k, n, confidence)
    assert stats.binom.cdf(k, n, bound) == pytest.approx(1 - confidence, abs=1e-6)
    assert k / n <= bound <= 1.0


def test_bounds_agree_with_an_independent_implementation() -> None:
    expected = stats.binomtest(3, 120).proportion_ci(0.95, method="exact")
    assert risk.interval(3, 120, 0.95) == pytest.approx((expected.low, expected.high))
    assert risk.interval(0, 20)[0] == 0.0
    assert risk.interval(20, 20)[1] == 1.0


@pytest.mark.parametrize(
    ("promise", "confidence", "num_errors", "expected"),
    [(0.01, 0.95, 0, 299), (0.05, 0.95, 0, 59), (0.05, 0.95, 1, 93), (0.05, 0.95, 3, 153), (0.1, 0.9, 0, 22)],
)
def test_needed_is_the_number_of_the_tables(promise: float, confidence: float, num_errors: int, expected: int) -> None:
    assert risk.needed(promise, confidence, num_errors=num_errors) == expected


@given(st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.3]), st.sampled_from([0.8, 0.9, 0.95, 0.99]), st.sampled_from([0, 50]))
@settings(max_examples=12, deadline=None)
def test_needed_is_the_least_that_suffices(promise: float, confidence: float, next_questions: int) -> None:
    n = risk.needed(promise, confidence, next_questions=next_questions)
    assert risk.allowed_errors(n, promise, confidence, next_questions=next_questions) >= 0
    assert risk.allowed_errors(n - 1, promise, confidence, next_questions=next_questions) == -1


def test_needed_of_the_mean_is_fewer() -> None:
    assert risk.needed(0.01, 0.95, guarantee="mean") == 99
    assert risk.allowed_errors(99, 0.01, 0.95, guarantee="mean") == 0
    assert risk.allowed_errors(98, 0.01, 0.95, guarantee="mean") == -1


def test_a_promise_that_the_sample_cannot_support_is_refused_with_the_number_needed() -> None:
    with pytest.raises(errors.CalibrationError, match=r"50 unanswerable .* at most 1 % .* at least 299 are needed"):
        risk.unanswerable_threshold(np.linspace(0, 1, 50), risk=0.01, confidence=0.95)


@pytest.mark.parametrize(("promise", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.05, 1.0), (float("nan"), 0.95)])
def test_levels_that_are_no_shares_are_refused(promise: float, confidence: float) -> None:
    with pytest.raises(errors.CalibrationError, match="is no share"):
        risk.check_level(promise, confidence)


@given(st.lists(st.sampled_from([0.1, 0.5, 0.5000001, 0.9]), min_size=60, max_size=200))
@settings(max_examples=40, deadline=None)
def test_threshold_answers_no_more_than_is_allowed_also_with_ties(scores: list[float]) -> None:
    found = risk.unanswerable_threshold(scores, risk=0.05, confidence=0.95)
    answered = sum(score >= found.value for score in scores)
    assert answered == found.errors <= risk.allowed_errors(len(scores), 0.05, 0.95)
    assert found.bound <= 0.05


@pytest.mark.parametrize(("n", "promise"), [(59, 0.05), (150, 0.05), (300, 0.02), (400, 0.01)])
def test_true_rate_of_unanswerable_questions_keeps_the_promise_in_95_of_100_calibrations(
    n: int, promise: float
) -> None:
    scores = np.random.default_rng(0).random((REPETITIONS, n))
    found = [risk.unanswerable_threshold(row, risk=promise, confidence=0.95).value for row in scores]
    # Of uniform scores, the share above a threshold is 1 less the threshold.
    assert np.mean(1 - np.array(found) <= promise) >= 0.95 - SLACK


@pytest.mark.parametrize(("later", "promise"), [(60, 0.05), (100, 0.05), (140, 0.05), (400, 0.05), (100, 0.02)])
def test_rate_measured_later_keeps_the_promise_in_95_of_100(later: int, promise: float) -> None:
    generator = np.random.default_rng(1)
    found = np.array(
        [
            risk.unanswerable_threshold(row, risk=promise, confidence=0.95, next_questions=50).value
            for row in generator.random((REPETITIONS, 270))
        ]
    )
    measured = (generator.random((REPETITIONS, later)) >= found[:, None]).mean(axis=1)
    assert np.mean(measured <= promise + 1e-12) >= 0.95 - SLACK


def test_the_true_rate_alone_is_measured_above_the_risk_too_often() -> None:
    # Why `next_questions` is there: the bound is right, and a small measurement does not show it.
    allowed = risk.allowed_errors(270, 0.05, 0.95)
    assert stats.betabinom.cdf(3, 60, allowed + 1, 270 - allowed) < 0.9
    fewer = risk.allowed_errors(270, 0.05, 0.95, next_questions=50)
    assert stats.betabinom.cdf(3, 60, fewer + 1, 270 - fewer) >= 0.95


def test_mean_rate_keeps_the_promise_of_the_mean() -> None:
    scores = np.random.default_rng(3).random((REPETITIONS, 120))
    found = [risk.unanswerable_threshold(row, risk=0.05, confidence=0.95, guarantee="mean").value for row in scores]
    rates = 1 - np.array(found)
    assert rates.mean() <= 0.05 + 3 * rates.std() / REPETITIONS**0.5


def _drawn(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, uniform; wrong with probability (1 − score)², so the risk above t is (1 − t)² / 3."""
    scores = generator.random(n)
    return scores, generator.random(n) < (1 - scores) ** 2


def test_share_of_wrong_answers_keeps_the_promise_in_95_of_100_calibrations() -> None:
    generator = np.random.default_rng(4)
    kept, promised = 0, 0
    for _ in range(REPETITIONS):
        design, _ = _drawn(generator, 150)
        scores, wrong = _drawn(generator, 300)
        thresholds = risk.sequence(design, 300, risk=0.1, confidence=0.95, steps=40)
        try:
            found = risk.answered_threshold(scores, wrong, thresholds, risk=0.1, confidence=0.95)
        except errors.CalibrationError:
            kept += 1
            continue
        promised += 1
        kept += (1 - found.value) ** 2 / 3 <= 0.1
    assert kept / REPETITIONS >= 0.95 - SLACK
    assert promised / REPETITIONS > 0.5


def test_sequence_begins_where_enough_are_answered_and_becomes_looser() -> None:
    design = np.random.default_rng(5).random(400)
    thresholds = risk.sequence(design, 300, risk=0.05, confidence=0.95)
    assert (design >= thresholds[0]).mean() * 300 >= risk.needed(0.05, 0.95)
    assert (np.diff(thresholds) < 0).all()
    assert len(risk.sequence(design, 20, risk=0.05, confidence=0.95)) == 0


def test_sequence_ends_at_the_first_threshold_that_is_not_proved() -> None:
    scores = np.linspace(1, 0, 400)
    wrong = np.zeros(400, dtype=bool)
    wrong[100:140] = True
    found = risk.answered_threshold(scores, wrong, [scores[90], scores[139], scores[399]], risk=0.15, confidence=0.95)
    assert found.value == scores[90]
    with pytest.raises(errors.CalibrationError, match="none wrong"):
        risk.answered_threshold(scores, ~wrong, [scores[90]], risk=0.15, confidence=0.95)
