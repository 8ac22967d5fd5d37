"""One attempt, run where it is called."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.blobs.blob_store import Blob
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.executors.base import Attempt, AttemptState, CallTarget, Outcome
from michelangelo.uniflow import codecs
from michelangelo.worker import call

USER_CODE = """
import dataclasses
from michelangelo import uniflow
from michelangelo.uniflow import task_context

@dataclasses.dataclass
class Point:
    x: int
    y: int

@uniflow.task
def mirror(point: Point) -> Point:
    return Point(point.y, point.x)

@uniflow.task(alias="shown")
def whoami():
    context = task_context.current()
    return [context.task, context.run_name, context.attempt, context.attempt_id]

@uniflow.task(io="pickle")
def anything():
    return {1, "a", Point(1, 2)} if False else complex(1, 2)

@uniflow.task
def calls_another(x):
    return mirror(Point(x, 0)).y

def kinds(lazy: uniflow.Ref, eager):
    return [type(lazy).__name__, type(eager).__name__, eager]
"""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = MemoryBlobStore()
        self.caller = call.Caller(lambda: self.store)
        self.path = folder / f"called_{os.urandom(4).hex()}.py"
        self.path.write_text(USER_CODE)

    def run(self, function: str, *args: Any, context: dict[str, Any] | None = None) -> Outcome:
        target = CallTarget(str(self.path), self.path.stem, function)
        arguments = codecs.encode_arguments(args, {}, self.store)
        return self.caller(Attempt(id="attempt-1", target=target, arguments=arguments, context=context or {}))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_task_gets_values_and_gives_an_encoded_one(bench: Bench) -> None:
    encoded: dict[str, Any] = {"args": [], "kwargs": {}}
    assert (
        bench.caller(Attempt("a", CallTarget(str(bench.path), bench.path.stem, "whoami"), encoded)).output is not None
    )
    import_point = codecs.decode(bench.run("calls_another", 4).output, bench.store)
    assert import_point == 4


def test_task_knows_where_it_is(bench: Bench) -> None:
    outcome = bench.run("whoami", context={"run_name": "run-1", "attempt": 3})
    assert outcome.output == ["shown", "run-1", 3, "attempt-1"]


def test_pickle_is_used_only_when_asked_for(bench: Bench) -> None:
    outcome = bench.run("anything")
    assert outcome.state is AttemptState.SUCCEEDED
    assert codecs.decode(outcome.output, bench.store, allow_pickle=True) == complex(1, 2)


def test_unknown_function_is_a_failure(bench: Bench) -> None:
    outcome = bench.run("nowhere")
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert outcome.error["type"] == "michelangelo.errors.SourceError"
    assert "nowhere" in outcome.error["message"]


def test_store_that_does_not_open_is_a_failure(bench: Bench) -> None:
    def refuse() -> MemoryBlobStore:
        raise errors.StorageError("the store is away")

    target = CallTarget(str(bench.path), bench.path.stem, "whoami")
    outcome = call.Caller(refuse)(Attempt("a", target, {"args": [], "kwargs": {}}))
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert outcome.error["message"] == "the store is away"


def test_data_is_loaded_but_for_parameters_that_take_a_ref(bench: Bench) -> None:
    numpy = pytest.importorskip("numpy")
    outcome = bench.run("kinds", numpy.arange(3), 7)
    assert outcome.output == ["Ref", "int", 7]


def test_threads_wait_for_a_module_that_another_imports(bench: Bench, tmp_path: Path) -> None:
    entered, released = tmp_path / "entered", tmp_path / "released"
    bench.path.write_text(
        "import os\n"
        f"open({str(entered)!r}, 'w').close()\n"
        f"while not os.path.exists({str(released)!r}): os.sched_yield()\n"
        "def late(): return 'there'\n"
    )
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(bench.run("late"))) for _ in range(2)]
    threads[0].start()
    while not entered.exists():
        os.sched_yield()
    threads[1].start()
    threads[1].join(0.2)  # time for it to go wrong
    released.touch()
    for thread in threads:
        thread.join()
    assert [outcome.output for outcome in outcomes] == ["there", "there"]


def test_result_that_cannot_be_stored_is_a_failure_of_that_task(bench: Bench) -> None:
    class Full(MemoryBlobStore):
        def put(self, data: bytes) -> Blob:
            raise errors.StorageError("the disk is full")

    bench.path.write_text("def large():\n    return b'x' * 1_000_000\n")
    target = CallTarget(str(bench.path), bench.path.stem, "large")
    outcome = call.Caller(Full)(Attempt("a", target, {"args": [], "kwargs": {}}))
    assert outcome.error is not None
    assert outcome.error["message"] == "the result of large: the disk is full"
    assert (outcome.error["file"], outcome.error["line"]) == (str(bench.path), 1)
