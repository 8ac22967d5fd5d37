"""Looking for ever: false alarms by simulation, changes found early and late, and a file that survives its writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm.tracebench import answering

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion
from michelangelo.llm.tracebench import watching
from michelangelo.llm.tracebench.recorder import Options
from michelangelo.llm.tracebench.recording import Recording
from michelangelo.llm.tracebench.statistics import sequential
from michelangelo.llm.tracebench.watching import Plan

TOLERANCE = 0.03


def alarms(drop: float, *, looks: int, streams: int, sample: int = 20, change: int = 0) -> np.ndarray:
    """For each stream the look of its alarm at 5 %, or 0: the same recursion as `sequential.look`, all at once."""
    rng, bets = np.random.default_rng(6), np.array(sequential.BETS) / (1 + TOLERANCE)
    running, alarm = np.zeros((streams, len(bets))), np.zeros(streams, dtype=int)
    for number in range(1, looks + 1):
        worse = 0.05 + (drop if number > change else 0)
        u = rng.random((streams, sample))
        drops = np.where(u < worse, 1.0, np.where(u < worse + 0.05, -1.0, 0.0))
        running += 1 / (number * (number + 1))
        running *= np.prod(1 + bets[None, None, :] * (drops[:, :, None] - TOLERANCE), axis=1)
        total = running.mean(axis=1) + 1 / (number + 1)
        alarm = np.where((alarm == 0) & (total >= 20), number, alarm)
    return alarm


def test_the_simulation_is_the_test_itself() -> None:
    rng = np.random.default_rng(9)
    wealth, bets = sequential.start(), np.array(sequential.BETS) / (1 + TOLERANCE)
    running = np.zeros(len(bets))
    for number in range(1, 30):
        drops = rng.choice([1.0, 0.0, -1.0], size=7)
        wealth = sequential.look(wealth, drops.tolist(), TOLERANCE)
        running = (running + 1 / (number * (number + 1))) * np.prod(1 + bets * (drops[:, None] - TOLERANCE), axis=0)
    assert wealth.running == pytest.approx(running)
    assert wealth.total == pytest.approx(running.mean() + 1 / 30)


@pytest.mark.parametrize("drop", [0.0, TOLERANCE])
def test_false_alarms_in_500_looks_are_at_most_five_percent(drop: float) -> None:
    assert (alarms(drop, looks=500, streams=1000) > 0).mean() <= 0.05


def test_a_drop_is_found_within_looks() -> None:
    found = alarms(0.15, looks=40, streams=500)
    assert (found > 0).mean() >= 0.9
    assert np.median(found[found > 0]) <= 12


def test_a_drop_after_many_good_looks_is_found_too() -> None:
    found = alarms(0.15, looks=260, streams=500, change=200)
    assert (found > 200).mean() >= 0.9


@given(drops=st.lists(st.floats(-1, 1), max_size=40), allowance=st.floats(0, 0.5))
def test_wealth_is_never_negative(drops: list[float], allowance: float) -> None:
    wealth = sequential.look(sequential.start(), drops, allowance)
    assert all(money >= 0 for money in wealth.running)
    assert wealth.highest >= wealth.total


def test_drops_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="from -1 to 1"):
        sequential.look(sequential.start(), [float("nan")], 0.0)


def test_the_baselines_luck_shrinks_with_repeats() -> None:
    def luck(repeats: int, cases: int = 200) -> float:
        made = answering.recorded(answering.yes_suite(cases, repeats=repeats), answering.by_rate(0.9, seed=3))
        return watching.allowance(made, 0.05, 0.03) - 0.03

    assert luck(1) > luck(2) > luck(8) > 0
    assert luck(1, cases=20) > 0.1


def test_the_baselines_luck_covers_its_error() -> None:
    # The recorded rate is above the true one by more than the luck in a hundredth of recordings, at 5 % in all.
    misses = 0
    for seed in range(40):
        made = answering.recorded(answering.yes_suite(60), answering.by_rate(0.8, seed=seed))
        rate = sum(row.passed for row in made.rows) / 60
        misses += rate - (watching.allowance(made, 0.05, 0.03) - 0.03) > 0.8
    assert misses <= 3


# --- the file ---------------------------------------------------------------------------------------------


@pytest.fixture
def baseline() -> Recording:
    return answering.recorded(answering.yes_suite(50, repeats=2), answering.saying("yes"))


def plan(sample: int = 10) -> Plan:
    return Plan("digest", "engine", 0.05, 0.03, 0.05, sample, 0)


def test_a_watch_goes_on_where_its_file_ends(tmp_path: Path, baseline: Recording) -> None:
    file, broken = tmp_path / "watch.jsonl", answering.by_rate(0.3, seed=1)
    for number in (1, 2, 3):
        with watching.opened(file, plan()) as watch:
            assert len(watch.looks) == number - 1
            look = watch.look(baseline, broken, Options(), answering.NOW)
            assert (look.number, len(look.cases)) == (number, 10)
    with watching.opened(file, plan()) as watch:
        assert watch.has_alarm
        assert watch.looks[-1].is_alarm
        assert len({look.cases for look in watch.looks}) == 3


def test_an_endpoint_that_is_as_before_gives_no_alarm(tmp_path: Path, baseline: Recording) -> None:
    with watching.opened(tmp_path / "watch.jsonl", plan()) as watch:
        for _ in range(20):
            watch.look(baseline, answering.saying("yes"), Options(), answering.NOW)
        assert not watch.has_alarm


def test_errors_of_the_endpoint_count_as_failed(tmp_path: Path, baseline: Recording) -> None:
    failing = answering.Answering(lambda r: Completion(id=r.id, error="503 from the server", finish_reason="error"))
    with watching.opened(tmp_path / "watch.jsonl", plan()) as watch:
        look = watch.look(baseline, failing, Options(), answering.NOW)
    assert (look.passed, look.errors) == (0, 10)


def test_a_look_that_was_cut_off_never_counted(tmp_path: Path, baseline: Recording) -> None:
    file = tmp_path / "watch.jsonl"
    with watching.opened(file, plan()) as watch:
        first = watch.look(baseline, answering.saying("yes"), Options(), answering.NOW)
        watch.look(baseline, answering.saying("no"), Options(), answering.NOW)
    file.write_bytes(file.read_bytes()[:-20])
    with watching.opened(file, plan()) as watch:
        assert watch.looks == [first]
        second = watch.look(baseline, answering.saying("yes"), Options(), answering.NOW)
    with watching.opened(file, plan()) as watch:
        assert watch.looks == [first, second]


def test_another_plan_and_another_watcher_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "watch.jsonl"
    refused = pytest.raises(errors.SuiteError, match="in use by another watch")
    with watching.opened(file, plan()), refused, watching.opened(file, plan()):
        pass
    with pytest.raises(errors.SuiteError, match="other values of sample"), watching.opened(file, plan(sample=11)):
        pass


@pytest.mark.parametrize("content", ["hello\n", '{"format": 1}\n', '{"format": 9, "plan": {}}\n'])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "watch.jsonl"
    file.write_text(content)
    with pytest.raises(errors.SuiteError, match="not the state of a watch"), watching.opened(file, plan()):
        pass
    assert file.read_text() == content
