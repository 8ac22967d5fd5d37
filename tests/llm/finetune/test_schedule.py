"""The learning rate: bounds, continuity, ends, and equality with Transformers' schedules where they coincide."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.finetune import schedule
from michelangelo.llm.finetune.config import OptimizerConfig

SCHEDULES = ["constant", "linear", "cosine", "wsd"]


@st.composite
def runs(draw: st.DrawFn) -> tuple[OptimizerConfig, int]:
    total = draw(st.integers(2, 400))
    config = OptimizerConfig(
        learning_rate=draw(st.floats(1e-6, 1.0)),
        schedule=draw(st.sampled_from(SCHEDULES)),
        warmup_steps=draw(st.integers(0, total - 1)),
        final_share=draw(st.floats(0.0, 1.0)),
        decay_share=draw(st.floats(0.0, 1.0)),
    )
    return config, total


def course(config: OptimizerConfig, total: int) -> list[float]:
    return [schedule.learning_rate(config, step, total) for step in range(1, total + 1)]


@given(runs())
def test_rate_stays_between_nothing_and_the_peak(run: tuple[OptimizerConfig, int]) -> None:
    config, total = run
    assert all(0.0 < rate <= config.learning_rate * (1 + 1e-12) for rate in course(config, total)[:-1])


@given(runs())
def test_warm_up_rises_to_the_peak_and_the_rate_never_rises_again(run: tuple[OptimizerConfig, int]) -> None:
    config, total = run
    rates = course(config, total)
    warm = config.warmup_steps
    if warm:
        assert rates[: warm - 1] == sorted(rates[: warm - 1])
        assert rates[warm - 1] == pytest.approx(config.learning_rate)
    falling = rates[max(warm - 1, 0) :]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(falling))


@given(runs())
def test_rate_ends_at_the_final_share_and_stays_there(run: tuple[OptimizerConfig, int]) -> None:
    config, total = run
    final = config.final_share
    if config.schedule == "constant" or (config.schedule == "wsd" and round(config.decay_share * total) == 0):
        final = 1.0
    assert schedule.learning_rate(config, total, total) == pytest.approx(config.learning_rate * final)
    assert schedule.learning_rate(config, total + 7, total) == schedule.learning_rate(config, total, total)


@given(runs())
def test_rate_makes_no_jump_larger_than_its_slope(run: tuple[OptimizerConfig, int]) -> None:
    config, total = run
    falling = total - config.warmup_steps
    if config.schedule == "wsd":
        falling = max(1, min(falling, round(config.decay_share * total)))
    steepest = max(1.0 / max(config.warmup_steps, 1) if config.warmup_steps else 0.0, 1.6 / falling)
    rates = course(config, total)
    for earlier, later in itertools.pairwise(rates):
        assert abs(later - earlier) <= config.learning_rate * steepest * (1 + 1e-9)


def test_a_warm_up_longer_than_the_run_rises_all_the_time() -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=20)
    assert course(config, 10) == pytest.approx([step / 20 for step in range(1, 11)])


@pytest.mark.parametrize(("step", "total"), [(-1, 10), (1, 0)])
def test_counts_that_cannot_be_are_refused(step: int, total: int) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        schedule.learning_rate(OptimizerConfig(), step, total)


def _linear(transformers: Any, optimizer: Any) -> Any:
    return transformers.get_linear_schedule_with_warmup(optimizer, 7, 50)


def _cosine(transformers: Any, optimizer: Any) -> Any:
    return transformers.get_cosine_with_min_lr_schedule_with_warmup(optimizer, 7, 50, min_lr_rate=0.1)


def _constant(transformers: Any, optimizer: Any) -> Any:
    return transformers.get_constant_schedule_with_warmup(optimizer, 7)


def _wsd(transformers: Any, optimizer: Any) -> Any:
    return transformers.get_wsd_schedule(
        optimizer, 7, num_decay_steps=10, num_training_steps=50, decay_type="linear", min_lr_ratio=0.1
    )


@pytest.mark.parametrize(
    ("name", "final_share", "theirs"),
    [("linear", 0.0, _linear), ("cosine", 0.1, _cosine), ("constant", 1.0, _constant), ("wsd", 0.1, _wsd)],
)
def test_rates_are_those_of_transformers(name: Any, final_share: float, theirs: Callable[[Any, Any], Any]) -> None:
    import torch
    import transformers

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = theirs(transformers, optimizer)
    config = OptimizerConfig(learning_rate=3e-4, schedule=name, warmup_steps=7, final_share=final_share)
    # Their warm-up of wsd starts from the final share, ours from nothing.
    first = config.warmup_steps if name == "wsd" else 1
    for step in range(1, 51):
        optimizer.step()
        scheduler.step()
        if step >= first:
            assert schedule.learning_rate(config, step, 50) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-15)
