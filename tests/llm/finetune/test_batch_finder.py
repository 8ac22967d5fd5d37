"""The batch finder against a memory of known size: exact where memory is monotone, safe where it is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.finetune import batch_finder, config
from michelangelo.llm.training_setup import TrainingSetup


class Memory:
    """A device: a fixed part, a part per row, and what fragmentation takes at some sizes."""

    def __init__(self, capacity: int, fixed: int, per_row: int, noise: Callable[[int], int] = lambda batch: 0) -> None:
        self.capacity, self._fixed, self._per_row, self._noise = capacity, fixed, per_row, noise
        self.tried: list[int] = []

    def peak(self, batch: int) -> int:
        return self._fixed + self._per_row * batch + self._noise(batch)

    def try_batch(self, batch: int) -> int:
        self.tried.append(batch)
        peak = self.peak(batch)
        return peak if peak <= self.capacity else 0


@given(
    largest=st.integers(0, 5000),
    limit=st.integers(1, 5000),
    predicted=st.integers(-3, 10_000),
    says_bytes=st.booleans(),
)
def test_the_largest_batch_is_found_in_as_many_tries_as_bisection_takes_and_four(
    largest: int, limit: int, predicted: int, says_bytes: bool
) -> None:
    memory = Memory(7000 + largest * 13 + 5, 7000, 13)
    attempt = memory.try_batch if says_bytes else lambda batch: bool(memory.try_batch(batch))
    capacity = memory.capacity if says_bytes else 0
    found = batch_finder.find(attempt, predicted=predicted, limit=limit, capacity_bytes=capacity)
    assert found.batch == min(largest, limit)
    assert found.is_exact
    assert len(found.tries) == len(memory.tried) <= batch_finder.max_tries(limit)
    assert len(set(memory.tried)) == len(memory.tried), "a batch is tried once"


@given(largest=st.integers(1, 4096))
def test_a_right_prediction_needs_two_tries(largest: int) -> None:
    found = batch_finder.find(lambda batch: batch <= largest, predicted=largest, limit=1 << 14, precision=0.07)
    assert found.batch == largest
    assert len(found.tries) <= 2


@given(largest=st.integers(50, 2000), off=st.floats(0.7, 1.0))
def test_bytes_of_two_tries_lead_straight_to_the_end(largest: int, off: float) -> None:
    memory = Memory(10_000 + 100 * largest + 50, 10_000, 100)
    found = batch_finder.find(
        memory.try_batch, predicted=round(off * largest), limit=1 << 14, capacity_bytes=memory.capacity
    )
    assert found.batch == largest
    assert len(found.tries) <= 10


@given(seed=st.integers(0, 10**6), predicted=st.integers(1, 600), limit=st.integers(1, 600))
def test_with_fragmentation_the_batch_is_one_that_fitted_and_the_tries_stay_bounded(
    seed: int, predicted: int, limit: int
) -> None:
    lost = [random.Random(seed * 1000 + batch).choice((0, 0, 0, 2000)) for batch in range(700)]
    memory = Memory(20_000, 3_000, 60, lambda batch: lost[batch])
    found = batch_finder.find(memory.try_batch, predicted=predicted, limit=limit, capacity_bytes=memory.capacity)
    assert len(memory.tried) <= batch_finder.max_tries(limit)
    assert found.batch in (0, *memory.tried)
    assert found.batch == max((t.batch for t in found.tries if t.fits), default=0)
    assert all(memory.peak(tried.batch) <= memory.capacity for tried in found.tries if tried.fits)


def test_a_limit_below_one_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        batch_finder.find(lambda batch: True, predicted=1, limit=0)


@given(
    micro=st.integers(1, 24), accumulation=st.integers(1, 24), largest=st.integers(1, 600), predicted=st.integers(0, 99)
)
def test_a_fitted_configuration_has_as_many_tokens_per_step(
    micro: int, accumulation: int, largest: int, predicted: int
) -> None:
    before = make(micro, accumulation)
    after = batch_finder.fit(
        before, TrainingSetup(), predicted=predicted, try_setup=lambda model, setup: setup.micro_batch <= largest
    )
    total = micro * accumulation
    assert after.training.micro_batch * after.training.gradient_accumulation == total
    assert after.training.micro_batch == max(n for n in range(1, total + 1) if total % n == 0 and n <= largest)
    assert after.model == before.model


def test_what_accumulates_is_tried_with_two_passes_as_gradients_are_summed_then() -> None:
    seen: list[TrainingSetup] = []

    def attempt(model: str, setup: TrainingSetup) -> bool:
        seen.append(setup)
        return setup.micro_batch <= 2

    batch_finder.fit(make(2, 4), TrainingSetup(), predicted=8, try_setup=attempt)
    assert seen[0].micro_batch == 8
    assert all(setup.gradient_accumulation == min(2, 8 // setup.micro_batch) for setup in seen)


def test_not_even_one_row_is_an_error_with_the_plans_view_and_ways_out() -> None:
    with pytest.raises(errors.DeviceMemoryError, match=r"largest micro batch is 3.*checkpointing: full"):
        batch_finder.fit(make(4, 1), TrainingSetup(), predicted=3, try_setup=lambda model, setup: False)


def test_several_workers_take_the_plans_word() -> None:
    def never(model: str, setup: TrainingSetup) -> bool:
        raise AssertionError("one process says nothing about two")

    before = make(2, 6, num_workers=2)
    after = batch_finder.fit(before, TrainingSetup(), predicted=5, try_setup=never)
    assert (after.training.micro_batch, after.training.gradient_accumulation) == (4, 3)


@pytest.mark.parametrize(("micro", "accumulation", "expected"), [(8, 2, (4, 4)), (6, 1, (3, 2)), (1, 8, None)])
def test_a_run_out_of_memory_steps_down_to_the_next_divisor(
    micro: int, accumulation: int, expected: tuple[int, int] | None
) -> None:
    smaller = batch_finder.step_down(make(micro, accumulation))
    found = smaller and (smaller.training.micro_batch, smaller.training.gradient_accumulation)
    assert found == expected


def make(micro: int, accumulation: int, num_workers: int = 1) -> config.FinetuneConfig:
    return config.parse(
        {
            "model": {"path": "llama-3.2-1b"},
            "data": {"train": [{"path": "rows.jsonl"}]},
            "output": str(Path("out")),
            "training": {"micro_batch": micro, "gradient_accumulation": accumulation},
            "parallel": {"num_workers": num_workers},
        }
    )
