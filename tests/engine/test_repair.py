"""Data that is lost or damaged is made again by the step that once made it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from michelangelo import errors, uniflow
from michelangelo.engine import repair
from michelangelo.engine.journal import Entry, EntryState
from michelangelo.uniflow import codecs

if TYPE_CHECKING:
    from tests.engine.conftest import Bench

_draws = itertools.count()


@uniflow.task
def produce(size: int) -> list[int]:
    return list(range(size))


@uniflow.task
def grow(values: list[int]) -> list[int]:
    return [*values, 1]


@uniflow.task
def consume(values: list[int]) -> int:
    return sum(values)


@uniflow.task
def draw(size: int) -> list[int]:
    return [next(_draws)] * size


@uniflow.task(idempotent=False)
def charge(size: int) -> list[int]:
    return list(range(size))


@uniflow.workflow
def pair() -> int:
    return consume.submit(produce.submit(9000)).result()


@uniflow.workflow
def chain() -> int:
    return consume.submit(grow.submit(produce.submit(9000))).result()


@uniflow.workflow
def fan_out() -> list[int]:
    values = produce.submit(9000)
    return [one.result() for one in [consume.submit(values) for _ in range(4)]]


@uniflow.workflow
def drawn() -> int:
    return consume.submit(draw.submit(9000)).result()


@uniflow.workflow
def charged() -> int:
    return consume.submit(charge.submit(9000)).result()


def blobs_of(bench: Bench, *tasks: str) -> list[str]:
    return [one for entry in bench.entries if entry.task in tasks for one in codecs.blobs_in(entry.output)]


def cut_back(bench: Bench, *tasks: str) -> list[str]:
    """The run as it was before the consumers; the blobs of these tasks' results."""
    found = blobs_of(bench, *tasks)
    bench.forget(lambda entry: entry.task != "consume")
    bench.executor.started.clear()
    return found


def repairs(bench: Bench) -> list[Entry]:
    return [entry for entry in bench.entries if repair.is_repair(entry)]


def test_lost_data_is_made_again(bench: Bench) -> None:
    expected = bench.drive(pair)
    for digest in cut_back(bench, "produce"):
        bench.blobs.delete(digest)
    assert bench.drive(pair) == expected
    assert bench.executor.started == ["consume", "produce", "consume"]
    (again,) = repairs(bench)
    assert again.state is EntryState.SUCCEEDED
    assert {entry.details.get("repair") for entry in bench.entries if entry.task == "consume"} == {again.step, None}


def test_damaged_data_is_made_again(bench: Bench) -> None:
    expected = bench.drive(pair)
    for digest in cut_back(bench, "produce"):
        bench.blobs._blobs[digest] = b"damaged"
    assert bench.drive(pair) == expected
    assert bench.executor.started == ["consume", "produce", "consume"]


def test_what_it_is_made_of_is_made_again_first(bench: Bench) -> None:
    expected = bench.drive(chain)
    for digest in cut_back(bench, "produce", "grow"):
        bench.blobs.delete(digest)
    assert bench.drive(chain) == expected
    assert bench.executor.started == ["consume", "grow", "produce", "grow", "consume"]


def test_many_consumers_share_one_repair(bench: Bench) -> None:
    expected = bench.drive(fan_out)
    for digest in cut_back(bench, "produce"):
        bench.blobs.delete(digest)
    assert bench.drive(fan_out) == expected
    assert bench.executor.started.count("produce") == 1
    assert bench.executor.started.count("consume") <= 8


def test_other_bytes_do_not_pass_for_the_lost_ones(bench: Bench) -> None:
    bench.drive(drawn)
    (digest,) = cut_back(bench, "draw")
    bench.blobs.delete(digest)
    with pytest.raises(errors.TaskError, match=digest):
        bench.drive(drawn)
    assert bench.executor.started == ["consume", "draw", "consume"]


def test_what_may_not_run_twice_is_not_run_again(bench: Bench) -> None:
    bench.drive(charged)
    (digest,) = cut_back(bench, "charge")
    bench.blobs.delete(digest)
    with pytest.raises(errors.TaskError, match=digest):
        bench.drive(charged)
    assert bench.executor.started == ["consume"]


def test_repair_is_no_step_of_the_workflow(bench: Bench) -> None:
    expected = bench.drive(pair)
    for digest in cut_back(bench, "produce"):
        bench.blobs.delete(digest)
    bench.drive(pair)
    bench.executor.started.clear()
    assert bench.drive(pair) == expected
    assert bench.executor.started == []


def test_driver_that_dies_in_a_repair_is_followed_by_another(bench: Bench) -> None:
    expected = bench.drive(pair)
    (digest,) = cut_back(bench, "produce")
    bench.blobs.delete(digest)
    bench.drive(pair)
    bench.blobs.delete(digest)
    (made,) = repairs(bench)
    # As the dead driver left it: the repair is running, its consumer was cut short.
    bench.forget(lambda entry: entry.task != "consume" or entry.state is EntryState.KILLED)
    key = next(key for key, entry in bench.log.entries.items() if entry == made)
    bench.log.entries[key] = Entry(made.step, made.attempt, made.type, made.task, made.fingerprint)
    assert bench.drive(pair) == expected
    assert sorted(entry.state for entry in repairs(bench)) == [EntryState.LOST, EntryState.SUCCEEDED]
