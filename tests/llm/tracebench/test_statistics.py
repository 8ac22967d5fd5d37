"""Tests, intervals and power: against brute force, against scipy where it has the same, and against simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from michelangelo.llm.tracebench.statistics import bootstrap, holm, intervals, mcnemar, permutation, power


def by_brute_force(values: list[int], *, two_sided: bool = False) -> float:
    """Over all sign patterns."""
    observed = sum(values)
    sums = [
        sum(s * abs(v) for s, v in zip(p, values, strict=True)) for p in itertools.product((1, -1), repeat=len(values))
    ]
    hits = [abs(s) >= abs(observed) if two_sided else s >= observed for s in sums]
    return sum(hits) / len(hits)


# --- McNemar ----------------------------------------------------------------------------------------------


@given(worse=st.integers(0, 60), better=st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(worse: int, better: int) -> None:
    total = worse + better
    expected = stats.binomtest(worse, total, 0.5, alternative="greater").pvalue if total else 1.0
    two_sided = stats.binomtest(worse, total, 0.5).pvalue if total else 1.0
    assert mcnemar.binomial(worse, better) == pytest.approx(expected)
    assert mcnemar.binomial(worse, better, side="differs") == pytest.approx(two_sided)


@given(values=st.lists(st.integers(-3, 3), max_size=9))
def test_counts_of_repeats_are_exact(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert mcnemar.counts(array) == pytest.approx(by_brute_force(values))
    assert mcnemar.counts(array, side="differs") == pytest.approx(by_brute_force(values, two_sided=True))


def test_counts_without_repeats_are_mcnemar() -> None:
    values = np.array([1] * 65 + [-1] * 35 + [0] * 900)
    assert mcnemar.counts(values) == pytest.approx(stats.binomtest(65, 100, alternative="greater").pvalue)


def test_counts_beyond_the_exact_limit_agree_with_the_normal_distribution() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-40, 42, size=20_000)
    z = values.sum() / math.sqrt((values**2).sum())
    assert 2 * np.abs(values).sum() > mcnemar.MAX_SUPPORT
    assert mcnemar.counts(values) == pytest.approx(stats.norm.sf(z), abs=0.01)


@given(total=st.integers(0, 400), level=st.sampled_from([0.05, 0.03, 0.01, 0.001]))
def test_critical_is_the_least_that_rejects(total: int, level: float) -> None:
    needed = int(mcnemar.critical(np.array([total]), level)[0])
    if needed <= total:
        assert mcnemar.binomial(needed, total - needed) <= level
    if needed:
        assert mcnemar.binomial(needed - 1, total - needed + 1) > level


# --- permutation ------------------------------------------------------------------------------------------


@given(values=st.lists(st.integers(-50, 50), max_size=10))
def test_sign_flip_of_few_cases_is_exact(values: list[int]) -> None:
    array = np.array(values, dtype=np.float64) / 10
    used = [v for v in values if v]
    expected = by_brute_force(used) if used else 1.0
    assert permutation.sign_flip(array) == pytest.approx(expected)


def test_sign_flip_of_many_cases_agrees_with_the_exact_test() -> None:
    values = np.array([1.0] * 40 + [-1.0] * 22)
    exact = mcnemar.binomial(40, 22)
    assert permutation.sign_flip(values, draws=19_999) == pytest.approx(exact, abs=0.004)


def test_sign_flip_never_gives_zero() -> None:
    assert permutation.sign_flip(np.ones(200), draws=99) == 1 / 100


# --- Holm -------------------------------------------------------------------------------------------------


def test_holm_is_the_published_procedure() -> None:
    assert holm.adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8), data=st.data())
def test_holm_rejects_as_step_down_says(p: list[float], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 5), min_size=len(p), max_size=len(p)))
    adjusted = holm.adjusted(p, weights)
    assert all(one >= raw - 1e-12 and one <= 1 for one, raw in zip(adjusted, p, strict=True))
    level, left, rejected = 0.05, set(range(len(p))), set()
    while left:
        best = min(left, key=lambda i: p[i] / weights[i])
        if p[best] * math.fsum(weights[i] for i in left) / weights[best] > level:
            break
        rejected.add(best)
        left.remove(best)
    # On the edge itself two orders of multiplying may differ.
    assert rejected <= {i for i, one in enumerate(adjusted) if one <= level * (1 + 1e-9)}
    assert {i for i, one in enumerate(adjusted) if one <= level * (1 - 1e-9)} <= rejected


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, math.inf]])
def test_holm_refuses_weights_that_make_no_sense(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="positive weight"):
        holm.adjusted([0.1, 0.2], weights)


# --- intervals --------------------------------------------------------------------------------------------


def test_tango_reproduces_his_published_interval() -> None:
    # Tango (1998), crossover of two lens treatments: 44 pairs, 0 and 1 discordant: -0.118 … 0.049 around -1/44.
    values = np.array([-1.0] + [0.0] * 43)
    low, high = intervals.drop_bounds(values, 0.95)
    assert low == pytest.approx(-0.118, abs=0.001)
    assert high == pytest.approx(0.061, abs=0.02)


@pytest.mark.parametrize(
    ("n", "worse", "better"), [(100, 0.02, 0.02), (400, 0.065, 0.035), (60, 0.2, 0.1), (50, 0.0, 0.0)]
)
def test_largest_drop_covers_what_it_promises(n: int, worse: float, better: float) -> None:
    rng = np.random.default_rng(5)
    u = rng.random((600, n))
    values = np.where(u < worse, 1.0, np.where(u < worse + better, -1.0, 0.0))
    covered = np.mean([intervals.largest_drop(row, 0.95) >= worse - better for row in values])
    assert covered > 0.92


def test_no_difference_in_few_cases_excludes_little() -> None:
    assert intervals.largest_drop(np.zeros(5)) > 0.3
    assert 0.08 < intervals.largest_drop(np.zeros(30)) < 0.09
    assert intervals.largest_drop(np.zeros(0)) == 1.0
    assert intervals.largest_drop(np.ones(9)) == 1.0


@given(values=st.lists(st.sampled_from([-1.0, -0.5, 0.0, 1 / 3, 1.0]), min_size=1, max_size=60))
def test_drop_bounds_hold_the_estimate(values: list[float]) -> None:
    low, high = intervals.drop_bounds(np.array(values))
    assert -1 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= 1


def test_rate_bounds_are_clopper_and_pearsons() -> None:
    expected = stats.binomtest(7, 50).proportion_ci(0.95, method="exact")
    assert intervals.rate_bounds(7, 50) == pytest.approx((expected.low, expected.high))
    assert intervals.rate_bounds(0, 0) == (0.0, 1.0)


def test_bootstrap_of_few_values_and_of_many_agree() -> None:
    rng = np.random.default_rng(2)
    few = rng.choice([1.0, 0.0, -1.0], size=800, p=[0.1, 0.8, 0.1])
    # The same values, told apart beyond what matters: the other way of drawing.
    many = few + rng.random(800) * 1e-9
    assert bootstrap.interval(few) == pytest.approx(bootstrap.interval(many, seed=3), abs=0.004)
    normal = 1.96 * few.std() / math.sqrt(800)
    assert bootstrap.interval(few) == pytest.approx((few.mean() - normal, few.mean() + normal), abs=0.004)
    assert all(math.isnan(end) for end in bootstrap.interval(np.array([1.0])))


# --- power ------------------------------------------------------------------------------------------------


def simulated(n: int, discordance: float, drop: float, level: float, repetitions: int = 8_000) -> float:
    """The share of simulated experiments that the exact test rejects."""
    rng = np.random.default_rng(7)
    share = max(discordance, drop)
    drawn = rng.multinomial(n, [(share + drop) / 2, (share - drop) / 2, 1 - share], size=repetitions)
    return float(np.mean(drawn[:, 0] >= mcnemar.critical(drawn[:, 0] + drawn[:, 1], level)))


@pytest.mark.parametrize(
    ("n", "discordance", "level"),
    [
        (1000, 0.1, 0.03),
        (1000, 0.1, 0.05),
        (200, 0.3, 0.05),
        (10_000, 0.02, 0.005),
        (100, 0.005, 0.05),
        (40, 0.2, 0.01),
    ],
)
def test_smallest_drop_is_right_within_a_tenth(n: int, discordance: float, level: float) -> None:
    stated = power.smallest_drop(n, discordance, level, 0.8)
    # Found with more than 80 % when a tenth larger, with less when a tenth smaller.
    assert simulated(n, discordance, 1.1 * stated, level) > 0.8
    assert simulated(n, discordance, 0.9 * stated, level) < 0.8
    assert power.detection(n, discordance, stated, level) == pytest.approx(
        simulated(n, discordance, stated, level), abs=0.02
    )


def test_too_few_cases_detect_nothing() -> None:
    assert power.smallest_drop(3, 0.1, 0.05) == math.inf
    assert power.detection(0, 0.1, 0.5, 0.05) == 0


@settings(max_examples=15)
@given(n=st.integers(30, 3000), discordance=st.floats(0.01, 0.5))
def test_more_cases_detect_smaller_drops(n: int, discordance: float) -> None:
    assert power.smallest_drop(2 * n, discordance, 0.05) < power.smallest_drop(n, discordance, 0.05)
