"""The conformance suite of the Journal protocol: the memory twin, and TaskRuns through the real API server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client.client import Object
from michelangelo.engine.journal import Entry, EntryState, Journal, StepType
from michelangelo.engine.memory import MemoryJournal, MemoryLog
from michelangelo.engine.taskruns import DECISION, TaskRunJournal, task_run_name
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import Store

Open = Callable[[str], Journal]


@pytest.fixture
def client(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[InProcessClient]:
    kind = getattr(request, "param", "memory")
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "michelangelo.db")
    client = InProcessClient(ApiServer(store))
    client.create({"apiVersion": "michelangelo.api/v2", "kind": "Project", "metadata": {"name": "team"}, "spec": {}})
    yield client
    client.close()
    store.close()


@pytest.fixture
def run(client: InProcessClient) -> Object:
    return client.create(
        {
            "apiVersion": "michelangelo.api/v2",
            "kind": "PipelineRun",
            "metadata": {"name": "run-1", "namespace": "team"},
            "spec": {
                "pipelineSpec": {"manifest": {"type": "Uniflow", "filePath": "flow.py", "uniflowFunction": "flow"}}
            },
        }
    )


@pytest.fixture(params=["memory", "taskruns-memory", "taskruns-sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """`opened("driver")` is the journal as the driver of that identity sees it."""
    if request.param == "memory":
        log = MemoryLog()
        yield lambda driver: MemoryJournal(log, driver=driver)
        return
    store: Store = MemoryStore() if request.param == "taskruns-memory" else SqliteStore(tmp_path / "michelangelo.db")
    client = InProcessClient(ApiServer(store))
    client.create({"apiVersion": "michelangelo.api/v2", "kind": "Project", "metadata": {"name": "team"}, "spec": {}})
    spec = {"pipelineSpec": {"manifest": {"type": "Uniflow", "filePath": "flow.py", "uniflowFunction": "flow"}}}
    made = client.create(
        {
            "apiVersion": "michelangelo.api/v2",
            "kind": "PipelineRun",
            "metadata": {"name": "run-1", "namespace": "team"},
            "spec": spec,
        }
    )
    yield lambda driver: TaskRunJournal(client, made, driver=driver)
    client.close()
    store.close()


def _started(step: str = "flow@1:4#1", attempt: int = 1, driver: str = "one", **changes: Any) -> Entry:
    entry = Entry(
        step=step,
        attempt=attempt,
        type=StepType.TASK,
        task="train",
        fingerprint="code:arguments",
        inputs={"args": [1, {"$codec": "tuple", "items": [2]}], "kwargs": {}},
        started_at="2026-01-01T00:00:00.000001Z",
        driver=driver,
        details={"executor": "process", "file": "flow.py", "line": 3},
    )
    return dataclasses.replace(entry, **changes)


def _ended(entry: Entry, completion: int = 1, **changes: Any) -> Entry:
    entry = dataclasses.replace(
        entry,
        state=EntryState.SUCCEEDED,
        output={"loss": 0.5},
        ended_at="2026-01-01T00:00:01.000002Z",
        completion=completion,
        final=True,
        details={**entry.details, "exitCode": 0},
    )
    return dataclasses.replace(entry, **changes)


def test_journal_loads_nothing_of_a_new_run(opened: Open) -> None:
    assert list(opened("one").load()) == []


def test_journal_loads_what_was_recorded(opened: Open) -> None:
    journal = opened("one")
    first, second = _started(), _started("flow@2:4#1")
    journal.start(first)
    journal.start(second)
    journal.end(_ended(second, 1))
    journal.end(_ended(first, 2))
    assert list(opened("two").load()) == [_ended(first, 2), _ended(second, 1)]


def test_journal_keeps_attempts_apart(opened: Open) -> None:
    journal = opened("one")
    failed = _ended(_started(), 0, state=EntryState.FAILED, final=False, output=None, error={"message": "no"})
    journal.start(_started())
    journal.end(failed)
    journal.start(_started(attempt=2))
    loaded = list(journal.load())
    assert [entry.attempt for entry in loaded] == [1, 2]
    assert loaded[0] == failed
    assert loaded[1].state is EntryState.RUNNING


def test_journal_records_an_end_without_a_start_whole(opened: Open) -> None:
    entry = _ended(_started(), 1, state=EntryState.CACHED)
    opened("one").end(entry)
    assert list(opened("two").load()) == [entry]


def test_journal_refuses_a_second_start_of_an_attempt(opened: Open) -> None:
    opened("one").start(_started())
    with pytest.raises(errors.LeaseLostError):
        opened("two").start(_started(driver="two"))


def test_journal_refuses_a_second_whole_record_of_an_attempt(opened: Open) -> None:
    opened("one").end(_ended(_started()))
    with pytest.raises(errors.LeaseLostError):
        opened("two").end(_ended(_started(driver="two")))


def test_journal_fences_the_driver_that_was_taken_over(opened: Open) -> None:
    old, new = opened("one"), opened("two")
    old.start(_started())
    (taken,) = new.load()
    assert taken.state is EntryState.RUNNING
    with pytest.raises(errors.LeaseLostError):
        old.end(_ended(_started()))
    new.end(_ended(_started(driver="two")))
    (entry,) = new.load()
    assert entry.final


def test_journal_lets_the_one_who_took_over_end_what_was_running(opened: Open) -> None:
    opened("one").start(_started())
    new = opened("two")
    new.load()
    lost = _ended(_started(driver="two"), 0, state=EntryState.LOST, final=False, output=None)
    new.end(lost)
    assert next(iter(opened("three").load())).state is EntryState.LOST


# --- what only the real journal has -----------------------------------------------------------------------


def test_journal_takes_its_own_write_for_its_own(client: InProcessClient, run: Object) -> None:
    """The answer to a create was lost, and the request is sent again."""
    journal = TaskRunJournal(client, run, driver="one")
    journal.start(_started())
    again = TaskRunJournal(client, run, driver="one")
    again.start(_started())
    again.end(_ended(_started()))
    assert next(iter(TaskRunJournal(client, run, driver="two").load())).final


def test_journal_survives_labels_put_on_a_running_entry(client: InProcessClient, run: Object) -> None:
    journal = TaskRunJournal(client, run, driver="one")
    journal.start(_started())
    name = task_run_name("run-1", "flow@1:4#1", 1)
    client.patch("TaskRun", name, {"metadata": {"labels": {"seen": "yes"}}}, namespace="team")
    journal.end(_ended(_started()))
    found = client.get("TaskRun", name, namespace="team")
    assert found["metadata"]["labels"]["seen"] == "yes"
    assert found["status"]["state"] == "Succeeded"


def test_journal_reads_a_decision_from_an_annotation(client: InProcessClient, run: Object) -> None:
    journal = TaskRunJournal(client, run, driver="one")
    journal.start(_started())
    journal.end(_ended(_started(), 0, state=EntryState.UNKNOWN, final=False, output=None))
    name = task_run_name("run-1", "flow@1:4#1", 1)
    client.patch("TaskRun", name, {"metadata": {"annotations": {DECISION: "retry"}}}, namespace="team")
    (entry,) = TaskRunJournal(client, run, driver="two").load()
    assert entry.details["decision"] == "retry"


def test_journal_stops_when_a_running_entry_was_deleted(client: InProcessClient, run: Object) -> None:
    journal = TaskRunJournal(client, run, driver="one")
    journal.start(_started())
    client.delete("TaskRun", task_run_name("run-1", "flow@1:4#1", 1), namespace="team")
    with pytest.raises(errors.LeaseLostError, match="deleted"):
        journal.end(_ended(_started()))


class _Unreachable(InProcessClient):
    """Says a few times that no server answers: before the request, or after it was carried out."""

    def __init__(self, server: ApiServer) -> None:
        super().__init__(server)
        self.before = self.after = 0

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        if self.before:
            self.before -= 1
            raise errors.UnavailableError("no server answers")
        made = super().create(obj, dry_run=dry_run)
        if self.after:
            self.after -= 1
            raise errors.UnavailableError("the server went away")
        return made


@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1)])
def test_journal_repeats_a_write_while_no_server_answers(before: int, after: int) -> None:
    store = MemoryStore()
    client = _Unreachable(ApiServer(store))
    client.create({"apiVersion": "michelangelo.api/v2", "kind": "Project", "metadata": {"name": "team"}, "spec": {}})
    made = client.create(
        {
            "apiVersion": "michelangelo.api/v2",
            "kind": "PipelineRun",
            "metadata": {"name": "run-1", "namespace": "team"},
            "spec": {
                "pipelineSpec": {"manifest": {"type": "Uniflow", "filePath": "flow.py", "uniflowFunction": "flow"}}
            },
        }
    )
    journal = TaskRunJournal(client, made, driver="one")
    client.before, client.after = before, after
    journal.start(_started())
    journal.end(_ended(_started()))
    assert next(iter(journal.load())).final
    store.close()
