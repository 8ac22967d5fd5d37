"""Waiting: what comes back, in which order, and that only the run decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from michelangelo import uniflow
from michelangelo.errors import UserCodeError
from michelangelo.uniflow.future import Future

if TYPE_CHECKING:
    from tests.uniflow.conftest import MemoryRun


@uniflow.task
def same(x: int) -> int:
    if x < 0:
        raise ValueError(f"negative: {x}")
    return x


def newest(waiting: Any) -> Any:
    return waiting[-1]


def test_results_come_in_the_order_of_calls(run: MemoryRun) -> None:
    run.order = newest
    assert same.map(range(4)).result() == [0, 1, 2, 3]


def test_as_completed_follows_completion(run: MemoryRun) -> None:
    run.order = newest
    assert [future.result() for future in uniflow.as_completed(same.map(range(4)))] == [3, 2, 1, 0]


def test_wait_for_all_gives_completion_order(run: MemoryRun) -> None:
    run.order = newest
    futures = same.map(range(3))
    done, not_done = uniflow.wait(futures)
    assert (done, not_done) == (futures[::-1], [])


def test_wait_for_the_first_gives_exactly_one(run: MemoryRun) -> None:
    run.order = newest
    futures = same.map(range(3))
    assert uniflow.wait(futures, return_when="FIRST_COMPLETED") == ([futures[2]], futures[:2])
    assert uniflow.wait(futures, return_when="FIRST_COMPLETED").done == [futures[2]]


def test_wait_for_the_first_failure_stops_there(run: MemoryRun) -> None:
    futures = same.map([1, 2, -3, 4])
    assert uniflow.wait(futures, return_when="FIRST_EXCEPTION") == (futures[:3], futures[3:])
    assert uniflow.wait(futures[:2], return_when="FIRST_EXCEPTION") == (futures[:2], [])


def test_timeouts_say_so(run: MemoryRun) -> None:
    run.seconds_left = 0.5
    futures = same.map(range(2))
    with pytest.raises(TimeoutError, match="same has not ended within 1 seconds"):
        futures[0].result(timeout=1)
    with pytest.raises(TimeoutError, match="2 steps have not all ended"):
        futures.result(timeout=1)
    with pytest.raises(TimeoutError, match="2 steps have not ended"):
        list(uniflow.as_completed(futures, timeout=1))
    assert uniflow.wait(futures, timeout=1) == ([], futures)
    run.seconds_left = 10
    assert futures.result(timeout=1) == [0, 1]


def test_done_asks_the_run_and_does_not_wait(run: MemoryRun) -> None:
    one, other = same.submit(1), same.submit(2)
    assert not one.done()
    other.result()
    run.order = newest
    assert other.done()
    assert one.done() is one.settled


def test_failure_is_raised_and_shown(run: MemoryRun) -> None:
    futures = same.map([1, -1, -2])
    with pytest.raises(UserCodeError, match="negative: -1"):
        futures.result()
    assert [str(future.exception() or "") for future in futures] == ["", "negative: -1", "negative: -2"]


def test_value_is_decoded_once_and_late(run: MemoryRun) -> None:
    decoded: list[Any] = []

    def decode(tree: Any) -> Any:
        decoded.append(tree)
        return [tree]

    future = Future[Any](run)
    future.settle("tree", decode)
    run.calls[id(future)], run.ended = (future, same, (), {}), [future]
    assert decoded == []
    assert future.result() is future.result()
    assert decoded == ["tree"]


def test_nothing_to_wait_for_returns_at_once(run: MemoryRun) -> None:
    for when in ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"):
        assert uniflow.wait([], return_when=when) == ([], [])
    assert list(uniflow.as_completed([])) == []
    assert same.map([]).result() == []


def test_same_future_twice_is_waited_for_once(run: MemoryRun) -> None:
    future = same.submit(1)
    assert uniflow.wait([future, future]).done == [future]


def test_unknown_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 'ALL_COMPLETED'"):
        uniflow.wait([], return_when="SOON")  # type: ignore[arg-type]  # that is the test


@pytest.mark.parametrize("wait", [lambda f: uniflow.wait(f).done, lambda f: list(uniflow.as_completed(f))])
def test_futures_outside_of_a_run_have_ended(wait: Callable[[Any], Any]) -> None:
    futures = same.map([1, 2])
    assert wait(futures) == futures
