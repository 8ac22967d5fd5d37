"""Delays and matches of retries: arithmetic on numbers and names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.errors import TaskError, TaskTimeoutError
from michelangelo.uniflow import retry
from michelangelo.uniflow.retry import Retry

retries = st.builds(
    Retry,
    attempts=st.integers(0, 50),
    backoff_seconds=st.floats(0, 1e6),
    factor=st.floats(1, 1e3),
    max_backoff_seconds=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)


def test_delays_grow_by_the_factor_up_to_the_bound() -> None:
    policy = Retry(attempts=5, backoff_seconds=1, factor=3, max_backoff_seconds=20, jitter=0)
    assert [retry.delay_seconds(policy, number) for number in range(1, 6)] == [1, 3, 9, 20, 20]


@given(policy=retries, number=st.integers(1, 10_000), seed=st.text())
def test_delays_stay_within_bounds_and_repeat(policy: Retry, number: int, seed: str) -> None:
    delay = retry.delay_seconds(policy, number, seed=seed)
    assert 0 <= delay <= policy.max_backoff_seconds
    assert delay == retry.delay_seconds(policy, number, seed=seed)
    if number == 1:
        assert delay >= min(policy.backoff_seconds, policy.max_backoff_seconds) * (1 - policy.jitter)


def test_jitter_spreads_tasks_that_failed_together() -> None:
    policy = Retry(attempts=1, backoff_seconds=10, jitter=0.5)
    delays = [retry.delay_seconds(policy, 1, seed=f"step-{number}") for number in range(100)]
    assert min(delays) < 6 < 9 < max(delays)


@pytest.mark.parametrize(
    ("on", "error", "expected"),
    [
        ((Exception,), ValueError("x"), True),
        ((Exception,), SystemExit(1), False),
        ((OSError,), ConnectionResetError(), True),
        ((OSError,), ValueError(), False),
        ((TaskTimeoutError,), TaskTimeoutError("x"), True),
        ((TaskError,), TaskTimeoutError("x"), True),
        (("TaskTimeoutError",), TaskTimeoutError("x"), True),
        (("michelangelo.errors.TaskError",), TaskTimeoutError("x"), True),
        (("other.TaskError",), TaskTimeoutError("x"), False),
        ((), ValueError(), False),
    ],
)
def test_matches_by_the_names_of_class_and_bases(on: Any, error: BaseException, expected: bool) -> None:
    assert Retry(attempts=1, on=on).matches(retry.type_names(error)) is expected


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"attempts=-1.*factor=0.5.*jitter=2"):
        Retry(attempts=-1, factor=0.5, jitter=2)
    with pytest.raises(ValueError, match="must be a tuple of exception classes"):
        Retry(on=OSError)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ValueError, match="retry_number=0"):
        retry.delay_seconds(Retry(), 0)
