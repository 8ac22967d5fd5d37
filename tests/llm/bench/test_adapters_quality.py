"""Adapters against full tuning: the text, the interval of differences, and what may be concluded of them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.bench import adapters_quality, corpus, performing, tasks

pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    # torch.compile is no part of it, but torch imports what warns about its own scripts.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]


def test_text_is_the_same_each_time_and_what_is_held_out_is_not_trained_on() -> None:
    first, second = (corpus.make(vocabulary=300, length=32, num_files=6, held_out_rows=20) for _ in range(2))
    assert first.sources.equal(second.sources)
    assert first.held_out.equal(second.held_out)
    assert (first.num_general_files, first.num_source_files, first.num_held_out_files) == (2, 3, 1)
    assert first.general.shape[1] == first.sources.shape[1] == first.held_out.shape[1] == 32
    assert len(first.held_out) == 20
    trained = {tuple(row) for row in [*first.sources.tolist(), *first.general.tolist()]}
    assert not trained & {tuple(row) for row in first.held_out.tolist()}
    assert int(max(first.general.max(), first.sources.max(), first.held_out.max())) < 300


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=10))
def test_interval_contains_its_mean_and_is_symmetric(values: list[float]) -> None:
    mean, low, high = adapters_quality.interval(values)
    assert low <= mean + 1e-9
    assert mean <= high + 1e-9
    assert high - mean == pytest.approx(mean - low, abs=1e-9)


def test_interval_of_known_values() -> None:
    # Mean 2, standard deviation 1, three values: 4.303 / sqrt(3) = 2.484 on both sides.
    assert adapters_quality.interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, -0.484, 4.484), abs=1e-3)
    assert adapters_quality.interval([0.5]) == (0.5, -math.inf, math.inf)
    assert all(math.isnan(value) for value in adapters_quality.interval([]))


@pytest.mark.slow
def test_methods_learn_and_the_answer_has_its_interval(tmp_path: Path) -> None:
    task = tasks.make("adapters", folder=tmp_path, device="cpu", quick=True, minutes=5)
    report = performing.perform("adapters", task)
    assert not report["left_out"]
    assert {run["seed"] for run in report["measurements"]} == {1, 2}
    for run in report["measurements"]:
        # Adapters begin with a leap upwards, as their rates are high for so few steps.
        begin, first, *_, last = (run["losses"][step] for step in sorted(run["losses"]))
        assert last < (begin if run["method"] == "full" else first), run
    for method, seed in itertools.product(("full", "LoRA"), (1, 2)):
        losses = [run["losses"] for run in report["measurements"] if (run["method"], run["seed"]) == (method, seed)]
        assert min(one[max(one)] for one in losses) < losses[0][0], (method, seed)
    behind = [q for q in report["quantities"] if q["name"] == "behind full tuning"]
    assert [q["case"] for q in behind] == ["LoRA against full", "QLoRA against full"]
    assert all(q["predicted"] == 0.0 and q["low"] < q["measured"] < q["high"] for q in behind)


def test_no_time_leaves_everything_out_but_says_so(tmp_path: Path) -> None:
    task = tasks.make("adapters", folder=tmp_path, device="cpu", quick=True, minutes=1e-6)
    report = performing.perform("adapters", task)
    assert "full at learning rate 0.003" in report["left_out"]
    assert all(quantity["measured"] is None for quantity in report["quantities"])
