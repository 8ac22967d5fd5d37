"""The promises of the verdict, by simulation through the code that decides: false alarms, detection, no lucky pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from michelangelo.llm.tracebench import verdict
from michelangelo.llm.tracebench.verdict import Evidence, Settings

REPETITIONS = 1000


@dataclass(frozen=True)
class World:
    """Cases that break and that are mended, as shares; with slices, and maybe scores."""

    worse: float
    better: float
    cases: int = 1000
    slices: int = 5
    is_scored: bool = False


def evidence(world: World, rng: np.random.Generator) -> Evidence:
    """One comparison of one answer each."""
    u = rng.random(world.cases)
    drops = np.where(u < world.worse, 1, np.where(u < world.worse + world.better, -1, 0))
    a = np.where(drops == 1, 1, np.where(drops == -1, 0, rng.random(world.cases) < 0.85))
    rates = np.array([a, a - drops], dtype=np.float64)
    scores = np.clip(rates / 2 + rng.random((2, world.cases)) / 2, 0, 1) if world.is_scored else None
    numbers = np.arange(world.cases)
    slices = {f"s{i}": numbers[i :: world.slices] for i in range(world.slices)}
    return Evidence(drops.astype(np.int64), np.ones(world.cases, np.int64), rates, scores, slices)


def flaky(p: np.ndarray, q: np.ndarray, repeats: int, rng: np.random.Generator) -> Evidence:
    """Cases that pass with probability p under A and q under B, asked so often."""
    passes = rng.binomial(repeats, np.array([p, q]))
    drops = (passes[0] - passes[1]).astype(np.int64)
    return Evidence(drops, np.full(len(p), repeats), passes / repeats, None, {"half": np.arange(0, len(p), 2)})


def verdicts(world: World, repetitions: int = REPETITIONS, settings: Settings | None = None) -> Counter[str]:
    rng, chosen = np.random.default_rng(11), settings or Settings()
    made: Counter[str] = Counter()
    for _ in range(repetitions):
        found = verdict.measures(evidence(world, rng), chosen, describes=False)
        made[verdict.decide(found, chosen)[0]] += 1
    return made


def test_false_alarms_are_at_most_five_percent_with_slices() -> None:
    found = verdicts(World(0.05, 0.05))
    assert found["regression"] <= 0.05 * REPETITIONS
    # It is no test that says nothing: most of them pass.
    assert found["pass"] > 0.8 * REPETITIONS


@pytest.mark.slow
def test_false_alarms_are_at_most_five_percent_with_scores() -> None:
    found = verdicts(World(0.05, 0.05, cases=400, slices=3, is_scored=True))
    assert found["regression"] <= 0.05 * REPETITIONS


@pytest.mark.slow
def test_false_alarms_are_at_most_five_percent_with_flaky_cases_and_repeats() -> None:
    rng, settings, alarms = np.random.default_rng(3), Settings(), 0
    p = rng.beta(4, 1, size=300)
    for _ in range(REPETITIONS):
        found = verdict.measures(flaky(p, p, 3, rng), settings, describes=False)
        alarms += verdict.decide(found, settings)[0] == "regression"
    assert alarms <= 0.05 * REPETITIONS


def test_a_drop_of_three_points_is_detected_with_eighty_percent() -> None:
    found = verdicts(World(0.065, 0.035))
    assert found["regression"] >= 0.8 * REPETITIONS


def test_a_drop_in_one_slice_is_detected() -> None:
    rng, settings, alarms = np.random.default_rng(4), Settings(), 0
    p = np.full(600, 0.95)
    q = p.copy()
    q[:60] = 0.6
    for _ in range(200):
        made = flaky(p, q, 1, rng)
        made = Evidence(made.drops, made.repeats, made.rates, None, {"bad": np.arange(60), "good": np.arange(60, 600)})
        found = verdict.measures(made, settings, describes=False)
        alarms += any(one.slice == "bad" and one.state == "regression" for one in found)
    assert alarms >= 0.9 * 200


def test_a_drop_of_the_tolerance_passes_in_five_percent_at_most() -> None:
    found = verdicts(World(0.065, 0.035, slices=0), settings=Settings(tolerance=0.03))
    assert found["pass"] <= 0.065 * REPETITIONS


@pytest.mark.parametrize("repeats", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_stated_detectable_drop_is_right_within_a_tenth(repeats: int) -> None:
    # Coins: whatever becomes of a case that passes half of the time, its pairs differ as often as before.
    rng, settings, n = np.random.default_rng(8), Settings(), 400
    is_coin = np.arange(n) < 120
    p = np.where(is_coin, 0.5, 1.0)
    # What a comparison states depends on the discordance that it happened to see.
    stated = np.mean([verdict.measures(flaky(p, p, repeats, rng), settings)[0].detectable for _ in range(10)])

    def power(drop: float) -> float:
        q, found = np.where(is_coin, 0.5 - drop / 0.3, 1.0), 0
        for _ in range(800):
            p_value = verdict.measures(flaky(p, q, repeats, rng), settings, describes=False)[0].p_value
            # The level that the whole suite has beside a slice.
            found += p_value is not None and p_value <= settings.alpha * settings.overall_weight
        return found / 800

    assert power(1.1 * float(stated)) > 0.8
    assert power(0.9 * float(stated)) < 0.8


def test_few_cases_never_pass() -> None:
    for cases in (1, 5, 20, 50):
        drops = np.zeros(cases, np.int64)
        made = Evidence(drops, np.ones(cases, np.int64), np.ones((2, cases)), None, {})
        state, reasons = verdict.decide(verdict.measures(made, Settings()), Settings())
        assert state == "inconclusive"
        assert "points" in reasons[0]


def test_many_cases_that_agree_pass() -> None:
    made = Evidence(np.zeros(200, np.int64), np.ones(200, np.int64), np.ones((2, 200)), None, {})
    assert verdict.decide(verdict.measures(made, Settings()), Settings())[0] == "pass"


def test_a_drop_within_the_tolerance_passes_and_is_said() -> None:
    drops = np.zeros(20_000, np.int64)
    drops[:100] = 1
    rates = np.ones((2, 20_000))
    rates[1] -= drops
    made = Evidence(drops, np.ones(20_000, np.int64), rates, None, {})
    state, reasons = verdict.decide(verdict.measures(made, Settings()), Settings())
    assert state == "pass"
    assert "it is worse, but by less than that" in reasons[0]


def test_every_slice_asks_for_each_slice() -> None:
    numbers = np.arange(300)
    made = Evidence(np.zeros(300, np.int64), np.ones(300, np.int64), np.ones((2, 300)), None, {"tiny": numbers[:4]})
    relaxed, strict = Settings(), Settings(every_slice=True)
    assert verdict.decide(verdict.measures(made, relaxed), relaxed)[0] == "pass"
    assert verdict.decide(verdict.measures(made, strict), strict)[0] == "inconclusive"


def test_settings_that_make_no_sense_are_all_named() -> None:
    with pytest.raises(ValueError, match=r"alpha must .*; power must .*; min_slice and resamples"):
        verdict.check(Settings(alpha=0.7, power=1.0, draws=1))
