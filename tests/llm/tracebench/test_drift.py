"""Distances of distributions: against scipy and by hand; p-values that hold, and a floor that is the noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance
from tests.llm.tracebench import answering

from michelangelo.llm.tracebench import drifting, pairing
from michelangelo.llm.tracebench.statistics import drift
from michelangelo.llm.tracebench.verdict import Settings


def test_distances_of_numbers_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, size=(80, 1)).astype(float), rng.integers(2, 12, size=(80, 1)).astype(float)
    ks, energy = drift.numbers(a, b, draws=19)
    assert ks.distance == pytest.approx(stats.ks_2samp(a[:, 0], b[:, 0]).statistic)
    assert energy.distance == pytest.approx(stats.energy_distance(a[:, 0], b[:, 0]) ** 2)


def test_distances_of_vectors_are_their_definitions() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(30, 1, 4)), rng.normal(0.5, 1, size=(30, 1, 4))
    energy, mmd = drift.vectors(a, b, draws=19)
    between, within = distance.cdist(a[:, 0], b[:, 0]), [distance.cdist(x[:, 0], x[:, 0]) for x in (a, b)]
    assert energy.distance == pytest.approx(2 * between.mean() - within[0].mean() - within[1].mean())
    pooled = np.concatenate([between.ravel(), *[w.ravel() for w in within]])
    width = np.median(pooled[pooled > 0])
    kernels = [np.exp(-(d**2) / (2 * width**2)).mean() for d in (*within, between)]
    assert mmd.distance == pytest.approx(kernels[0] + kernels[1] - 2 * kernels[2])


def test_p_values_of_numbers_hold_when_nothing_changed() -> None:
    rng, low = np.random.default_rng(3), np.zeros(2)
    for seed in range(300):
        # Answers to one question are alike, whoever gives them: pairs are not independent.
        question = rng.normal(0, 3, size=(60, 1))
        a, b = question + rng.normal(size=(60, 2)), question + rng.normal(size=(60, 2))
        low += [shift.p_value <= 0.05 for shift in drift.numbers(a, b, draws=99, seed=seed)]
    assert (low / 300 <= 0.09).all()


def test_a_change_is_found_that_pairing_shows() -> None:
    rng = np.random.default_rng(4)
    question = rng.normal(0, 10, size=(200, 1))
    a, b = question + rng.normal(size=(200, 1)), question + 1 + rng.normal(size=(200, 1))
    energy = drift.numbers(a, b, draws=199)[1]
    assert energy.p_value == 1 / 200
    # Without the pairs nobody would see it.
    assert stats.ks_2samp(a[:, 0], b[:, 0]).pvalue > 0.05


def test_the_floor_is_what_a_version_does_to_itself() -> None:
    rng = np.random.default_rng(5)
    same = rng.normal(size=(2000, 2))
    ks = drift.numbers(same, rng.normal(size=(2000, 2)), draws=19)[0]
    assert ks.floor == pytest.approx(ks.distance, abs=0.03)
    assert ks.excess < 0.03
    moved = drift.numbers(same, rng.normal(2, 1, size=(2000, 2)), draws=19)[0]
    assert moved.excess > 0.6
    without = drift.numbers(same[:, :1], same[:, 1:], draws=19)[0]
    assert np.isnan(without.floor)
    assert without.excess == without.distance


def test_drift_of_recordings_names_what_moved() -> None:
    asked = answering.yes_suite(120, repeats=2, checks=[{"regex": "^yes"}])
    short = answering.recorded(asked, answering.by_rate(0.9, seed=1))
    other = answering.recorded(asked, answering.saying("I'm sorry, but I cannot help with that question at all."))
    moved = {
        one.quantity for one in drifting.of(pairing.pair(short, other).pairs, Settings(draws=199)) if one.has_moved
    }
    assert moved == {"refusal rate", "format validity", "length", "wording"}
    again = answering.recorded(asked, answering.by_rate(0.9, seed=2))
    assert not any(one.has_moved for one in drifting.of(pairing.pair(short, again).pairs, Settings(draws=199)))


def test_answers_that_are_equal_have_no_distance() -> None:
    asked = answering.yes_suite(10)
    one, two = (answering.recorded(asked, answering.saying("")) for _ in range(2))
    found = drifting.of(pairing.pair(one, two).pairs, Settings(draws=19))
    assert all(drift.distance == pytest.approx(0, abs=1e-12) for drift in found)
    assert all(drift.p_value == 1 for drift in found)
