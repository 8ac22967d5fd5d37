"""The driver on workflows of every shape: what they return, and what the journal holds afterwards."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest

from michelangelo import errors, uniflow
from michelangelo.engine.journal import EntryState, StepType

if TYPE_CHECKING:
    from tests.engine.conftest import Bench


@uniflow.task
def add(one: int, other: int) -> int:
    return one + other


@uniflow.task
def double(number: int) -> int:
    return 2 * number


@uniflow.task
def fail(text: str) -> None:
    raise ValueError(text)


@uniflow.task(retries=uniflow.Retry(attempts=2, backoff_seconds=0.0))
def fail_always() -> None:
    raise KeyError("nothing there")


@uniflow.workflow
def chain(length: int) -> int:
    total = 0
    for _ in range(length):
        total = add(total, 1)
    return total


def test_driver_returns_the_result_of_a_chain(bench: Bench) -> None:
    assert bench.drive(chain, 5) == 5
    assert [entry.completion for entry in bench.entries] == [1, 2, 3, 4, 5]
    assert all(entry.state is EntryState.SUCCEEDED and entry.final for entry in bench.entries)


def test_driver_runs_no_recorded_step_again(bench: Bench) -> None:
    bench.drive(chain, 5)
    bench.forget(lambda entry: entry.completion <= 3)
    bench.executor.started.clear()
    assert bench.drive(chain, 5) == 5
    assert len(bench.executor.started) == 2


@uniflow.workflow
def diamond(number: int) -> int:
    left = double.submit(number)
    right = add.submit(number, 1)
    return add.submit(left, right).result()


def test_driver_passes_futures_as_dependencies(bench: Bench) -> None:
    assert bench.drive(diamond, 4) == 13


@uniflow.workflow
def fan_out(count: int) -> list[int]:
    return double.map(range(count)).result()


@uniflow.task
def total_of(parts: dict[str, list[int]]) -> int:
    return sum(sum(numbers) for numbers in parts.values())


@uniflow.workflow
def mapped_inside_a_dictionary() -> int:
    return total_of({"doubled": double.map([1, 2, 3]), "plain": [1]})  # type: ignore[dict-item]  # futures are resolved


def test_driver_resolves_the_futures_of_map_inside_other_arguments(bench: Bench) -> None:
    assert bench.drive(mapped_inside_a_dictionary) == 13


def test_driver_maps_over_items(bench: Bench) -> None:
    assert bench.drive(fan_out, 20) == [2 * number for number in range(20)]


@uniflow.workflow
def catching() -> str:
    try:
        fail("broken")
    except ValueError as error:
        return f"caught {error} as {isinstance(error, errors.UserCodeError)}"
    return "nothing"


def test_driver_raises_what_the_task_raised(bench: Bench) -> None:
    assert bench.drive(catching) == "caught broken as True"
    assert bench.drive(catching) == "caught broken as True"
    assert bench.executor.started == ["fail"]


@uniflow.workflow
def failing() -> None:
    fail_always()


def test_driver_retries_as_often_as_asked(bench: Bench) -> None:
    with pytest.raises(KeyError) as caught:
        bench.drive(failing)
    assert isinstance(caught.value, errors.TaskError)
    assert [entry.state for entry in bench.entries] == [EntryState.FAILED] * 3
    assert sorted(entry.final for entry in bench.entries) == [False, False, True]


def test_driver_launches_a_lost_step_again_within_its_own_budget(bench: Bench) -> None:
    bench.executor.lost = {"add": 2}
    assert bench.drive(chain, 2) == 2
    assert [entry.state for entry in bench.log.entries.values()] == [
        EntryState.LOST,
        EntryState.LOST,
        EntryState.SUCCEEDED,
        EntryState.SUCCEEDED,
    ]


def test_driver_fails_a_step_that_is_lost_too_often(bench: Bench) -> None:
    bench.executor.lost = {"add": 3}
    with pytest.raises(errors.WorkerLostError):
        bench.drive(chain, 1)


@uniflow.task(idempotent=False)
def charge(amount: int) -> int:
    return amount


@uniflow.workflow
def buying() -> int | None:
    return charge(7)


def test_driver_stops_for_a_decision_when_a_step_that_is_not_idempotent_is_lost(bench: Bench) -> None:
    bench.executor.lost = {"charge": 1}
    with pytest.raises(errors.UnknownOutcomeError, match="annotation michelangelo/decision"):
        bench.drive(buying)
    with pytest.raises(errors.UnknownOutcomeError):
        bench.drive(buying)
    assert bench.executor.started == ["charge"]


@pytest.mark.parametrize(("decision", "result", "starts"), [("retry", 7, 2), ("done", None, 1)])
def test_driver_follows_a_decision(bench: Bench, decision: str, result: int | None, starts: int) -> None:
    bench.executor.lost = {"charge": 1}
    with pytest.raises(errors.UnknownOutcomeError):
        bench.drive(buying)
    ((key, entry),) = bench.log.entries.items()
    bench.log.entries[key] = dataclasses.replace(entry, details={**entry.details, "decision": decision})
    assert bench.drive(buying) == result
    assert len(bench.executor.started) == starts


@uniflow.workflow
def inner(number: int) -> int:
    return add(double(number), 1)


@uniflow.workflow
def outer() -> list[int]:
    return [inner(number) for number in range(3)]


def test_driver_gives_nested_workflows_scopes_of_their_own(bench: Bench) -> None:
    assert bench.drive(outer) == [1, 3, 5]
    assert len({entry.step for entry in bench.entries}) == 6
    assert bench.drive(outer) == [1, 3, 5]
    assert len(bench.executor.started) == 6


@uniflow.workflow
def racing(count: int) -> list[int]:
    futures = [double.submit(number) for number in range(count)]
    return [future.result() for future in uniflow.as_completed(futures)]


def test_driver_replays_the_order_of_completion(bench: Bench) -> None:
    first = bench.drive(racing, 8)
    assert sorted(first) == [2 * number for number in range(8)]
    assert bench.drive(racing, 8) == first


@uniflow.workflow
def napping() -> list[str]:
    before = uniflow.now()
    uniflow.sleep(0.01)
    after = uniflow.now()
    return [str(before), str(after), str(uniflow.uuid()), str(uniflow.random().random())]


def test_driver_repeats_time_and_chance(bench: Bench) -> None:
    first = bench.drive(napping)
    assert bench.drive(napping) == first
    assert [entry.type for entry in bench.entries] == [StepType.VALUE, StepType.TIMER, StepType.VALUE]


@uniflow.workflow
def impatient() -> list[Any]:
    future = double.submit(1)
    early = future.done()
    late = uniflow.wait([future], timeout=0.0)
    return [early, len(late.done), future.result()]


def test_driver_repeats_what_a_wait_with_a_timeout_saw(bench: Bench) -> None:
    event = bench.executor.held["double"] = threading.Event()
    timer = threading.Timer(0.5, event.set)
    timer.start()
    first = bench.drive(impatient)
    assert first == [False, 0, 2]
    assert bench.drive(impatient) == first
    timer.join()


@uniflow.workflow
def threaded() -> str:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            add(1, 2)
        except errors.ForeignThreadError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return type(caught[0]).__name__


def test_driver_refuses_calls_from_other_threads(bench: Bench) -> None:
    assert bench.drive(threaded) == "ForeignThreadError"
