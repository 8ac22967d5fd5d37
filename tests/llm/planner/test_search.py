"""The search: its choices are those of brute force, nothing on its front is beaten, and rejections say what helps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm import model_shape
from michelangelo.llm.planner import chart, hardware, pareto, plan, prices, rejections, search
from michelangelo.llm.training_setup import TrainingSetup

LLAMA = model_shape.load("llama-3.1-8b")
BASE = TrainingSetup(sequence_length=4096)
MACHINES = tuple(hardware.load(name) for name in ("h100", "rtx-4090", "l40s"))
SPACE = search.Space(base=BASE, micro_batches=(1, 4), gpus=(1, 4), optimizers=("adamw",), compiled=(True,))


@pytest.fixture(scope="module")
def found() -> search.Found:
    return search.run(LLAMA, SPACE, MACHINES, plan.Assumptions())


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), max_size=40))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int, int]]) -> None:
    front = pareto.front(points, key=lambda point: point)
    assert all(not pareto.dominates(other, kept) for kept in front for other in points)
    for point in points:
        assert any(kept == point or pareto.dominates(kept, point) for kept in front)
    assert len(set(front)) == len(front)


def test_the_choices_are_those_of_brute_force(found: search.Found) -> None:
    fitting = []
    for machine in MACHINES:
        for setup in search.setups(SPACE, gpus_per_node=machine.gpus_per_node):
            made = plan.make(LLAMA, setup, machine, plan.Assumptions())
            if made.verdict == "fits":
                fitting.append(made)
    assert len(fitting) == len(found.candidates)
    money = [one.cost.money.value for one in fitting if one.cost.money is not None]
    cheapest, fastest, smallest = found.cheapest, found.fastest, found.smallest
    assert cheapest is not None
    assert fastest is not None
    assert smallest is not None
    assert cheapest.money == pytest.approx(min(money))
    assert fastest.hours == pytest.approx(min(one.cost.hours.value for one in fitting))
    assert smallest.setup.num_gpus == min(one.setup.num_gpus for one in fitting)
    least = min(one.capacity_bytes for one in fitting if one.setup.num_gpus == smallest.setup.num_gpus)
    assert smallest.hardware.memory_bytes == least


def test_a_candidate_in_full_is_what_the_search_said(found: search.Found) -> None:
    assert found.fastest is not None
    made = found.plan(found.fastest)
    assert made.verdict == "fits"
    assert made.peak_bytes == found.fastest.peak_bytes
    assert made.cost.hours.value == pytest.approx(found.fastest.hours)
    assert made.cost.money is not None
    assert made.cost.money.value == pytest.approx(found.fastest.money)


def test_nothing_on_the_front_is_beaten(found: search.Found) -> None:
    def figures(one: search.Candidate) -> tuple[float, ...]:
        return (one.money, one.hours, one.setup.num_gpus, one.peak_bytes)

    front = found.front()
    assert 0 < len(front) < len(found.candidates)
    for kept in front:
        assert not any(pareto.dominates(figures(other), figures(kept)) for other in found.candidates)
    best = min(one.money for one in front)
    assert found.cheapest is not None
    assert best == pytest.approx(found.cheapest.money, rel=0.01)


def test_each_setup_is_tried_once_and_all_are_counted(found: search.Found) -> None:
    tried = list(search.setups(SPACE))
    assert len(set(tried)) == len(tried)
    assert found.num_tried == len(MACHINES) * len(tried)


def test_a_default_search_tries_ten_thousand_setups() -> None:
    assert sum(1 for _ in search.setups(search.Space())) > 10_000


def test_a_step_of_so_many_tokens_is_reached_by_accumulation() -> None:
    space = search.Space(base=BASE, gpus=(1, 4), tokens_per_step=1 << 20)
    for setup in search.setups(space):
        once = setup.micro_batch * setup.sequence_length * setup.num_gpus
        assert setup.tokens_per_step >= 1 << 20 > setup.tokens_per_step - once


def test_rejections_say_what_is_short_and_what_would_help(found: search.Found) -> None:
    groups = rejections.grouped(LLAMA, found.rejected, found.assumptions)
    assert sum(group.count for group in groups) == len(found.rejected)
    for group in groups:
        assert group.nearest.missing > 0 or group.nearest.host_missing > 0
        text = rejections.describe(group)
        assert re.match(r"needs [\d.,]+ GiB of [\d.,]+ on the (GPU|host): \w+ [\d.,]+", text)
        for cure in group.cures:
            assert cure in {name for name, _ in rejections.CHANGES} or cure.startswith("num_gpus=")
    assert any(group.cures for group in groups)


@pytest.mark.parametrize(("name", "change"), rejections.CHANGES)
def test_a_cure_really_cures(name: str, change: Any) -> None:
    setup = TrainingSetup(method="full", sequence_length=8192, micro_batch=4, cross_entropy="plain", attention="eager")
    for machine in (hardware.load("h200"), hardware.load("h100")):
        if name in rejections.cures(LLAMA, setup, machine, plan.Assumptions()):
            made = plan.make(LLAMA, setup.replace(**change), machine, plan.Assumptions())
            assert made.verdict == "fits"


def test_what_cannot_be_is_counted_and_named() -> None:
    space = search.Space(base=BASE, gpus=(12,), micro_batches=(1,))
    nothing = search.run(LLAMA, space, [hardware.load("h100")], plan.Assumptions())
    assert nothing.cheapest is nothing.fastest is nothing.smallest is None
    assert nothing.front() == []
    ((why, count),) = nothing.impossible
    assert "num_gpus: 12" in why
    assert count == nothing.num_tried


def test_without_prices_gpu_hours_are_what_is_cheap() -> None:
    found = search.run(LLAMA, SPACE, [hardware.load("h200-nvl")], plan.Assumptions())
    cheapest = found.cheapest
    assert cheapest is not None
    assert cheapest.money == 0
    hours = min(one.hours * one.setup.num_gpus for one in found.candidates)
    assert cheapest.hours * cheapest.setup.num_gpus == hours


def test_what_has_no_price_is_never_the_cheapest() -> None:
    machines = [hardware.load("h200-nvl"), hardware.load("h100")]
    found = search.run(LLAMA, SPACE, machines, plan.Assumptions())
    assert found.cheapest is not None
    assert found.cheapest.hardware.name == "h100"
    assert {one.hardware.name for one in found.front()} >= {"h100"}


@settings(max_examples=10, deadline=None)
@given(price=st.floats(0.1, 20))
def test_one_price_for_all_makes_the_fastest_gpu_hours_the_cheapest(price: float) -> None:
    space = search.Space(base=BASE, methods=("lora",), micro_batches=(1, 2), gpus=(1, 2), compiled=(True,))
    found = search.run(LLAMA, space, MACHINES[:2], plan.Assumptions(prices=prices.flat(price)))
    cheapest = found.cheapest
    assert cheapest is not None
    assert cheapest.money == pytest.approx(price * min(one.hours * one.setup.num_gpus for one in found.candidates))


@pytest.mark.parametrize("ending", chart.FORMATS)
def test_a_plot_is_drawn(found: search.Found, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"plan{ending}"
    chart.draw(found, str(file))
    assert file.stat().st_size > 5_000
    if ending == ".svg":
        text = file.read_text()
        assert "hours" in text or "<use" in text
        chart.draw(found, str(tmp_path / "again.svg"))
        assert (tmp_path / "again.svg").read_text() == text


@pytest.mark.parametrize(("name", "says"), [("plan.jpeg", "must end with"), ("nosuch/plan.svg", "no folder")])
def test_a_plot_that_cannot_be_is_refused_before_anything_is_searched(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match=says):
        chart.check(str(tmp_path / name))
