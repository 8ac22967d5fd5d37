"""Runs from the lease to the last status, on the real API server with a store in memory."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.engine.conftest import Site, in_thread, until

from michelangelo import errors, uniflow
from michelangelo.engine import conductor
from michelangelo.engine.status import RESUMABLE
from michelangelo.engine.taskruns import DECISION
from michelangelo.meta import conditions


@uniflow.task
def add(one: int, other: int) -> int:
    return one + other


@uniflow.task
def fail(text: str) -> None:
    raise ValueError(text)


@uniflow.workflow
def chain(length: int) -> int:
    total = 0
    for _ in range(length):
        total = add(total, 1)
    return total


def test_run_ends_with_result_and_counts(site: Site) -> None:
    site.create()
    assert site.conduct(chain, 3) == 3
    status = site.status()
    assert (status["state"], status["result"], status["code"]) == ("Succeeded", 3, 0)
    assert status["stepCounts"] == {"total": 3, "succeeded": 3}
    assert [step["displayName"] for step in status["steps"]] == ["add"] * 3
    assert site.client.list("Lease", namespace="team").items == []


def test_run_shows_a_bounded_number_of_steps(site: Site) -> None:
    site.create()
    site.conduct(chain, 120)
    assert len(site.status()["steps"]) == 100
    assert site.status()["stepCounts"]["total"] == 120


@uniflow.workflow
def failing() -> None:
    fail("no luck")


def test_failed_run_says_where_in_the_users_code(site: Site) -> None:
    site.create()
    with pytest.raises(ValueError, match="no luck"):
        site.conduct(failing)
    status = site.status()
    assert (status["state"], status["exceptionType"]) == ("Failed", "User")
    assert "task fail: ValueError: no luck" in status["errorMessage"]
    assert "test_conductor.py, line" in status["errorMessage"]
    assert "raise ValueError(text)" in status["errorMessage"]


@uniflow.task
def lose_disk() -> None:
    raise errors.StorageError("the disk of the task is full")


@uniflow.workflow
def losing_disk() -> None:
    lose_disk()


def test_platform_error_of_a_task_fails_the_run_and_not_the_platform(site: Site) -> None:
    site.create()
    with pytest.raises(errors.StorageError):
        site.conduct(losing_disk)
    assert (site.status()["state"], site.status()["exceptionType"]) == ("Failed", "User")


@uniflow.workflow
def broken() -> None:
    add(1, 2)
    raise LookupError("in the workflow itself")


def test_failed_workflow_code_is_shown_with_its_line(site: Site) -> None:
    site.create()
    with pytest.raises(LookupError):
        site.conduct(broken)
    message = site.status()["errorMessage"]
    assert 'raise LookupError("in the workflow itself")' in message
    assert "in broken" in message


@uniflow.workflow
def odd() -> Any:
    return threading.Lock()


def test_run_fails_when_no_codec_carries_its_result(site: Site) -> None:
    site.create()
    with pytest.raises(errors.CodecError, match="the result of workflow odd"):
        site.conduct(odd)
    assert site.status()["state"] == "Failed"


def test_killed_run_ends_its_tasks_and_records_it(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.held["add"] = threading.Event()
    thread, found = in_thread(lambda: site.conduct(chain, 3, executor=executor))
    assert executor.launched.acquire(timeout=20.0)
    site.client.patch("PipelineRun", "run-1", {"spec": {"kill": True}}, namespace="team")
    thread.join(20.0)
    assert isinstance(found[0], errors.RunKilledError)
    assert site.status()["state"] == "Killed"
    (task_run,) = site.task_runs()
    assert (task_run["status"]["state"], task_run["status"]["final"]) == ("Killed", True)


def test_killed_run_stays_killed(site: Site) -> None:
    site.create(kill=True)
    with pytest.raises(errors.RunKilledError):
        site.conduct(chain, 1000)
    with pytest.raises(errors.WorkflowError, match=r"has ended \(Killed\)"):
        site.conduct(chain, 3, is_resumed=True)


@uniflow.workflow
def stubborn() -> int:
    while True:
        try:
            add(1, 1)
        except Exception:  # noqa: BLE001 - what such a workflow does is the subject
            continue


def test_kill_is_no_exception_that_a_workflow_can_swallow(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.held["add"] = threading.Event()
    thread, found = in_thread(lambda: site.conduct(stubborn, executor=executor))
    assert executor.launched.acquire(timeout=20.0)
    site.client.patch("PipelineRun", "run-1", {"spec": {"kill": True}}, namespace="team")
    thread.join(20.0)
    assert isinstance(found[0], errors.RunKilledError)


def test_deleted_run_stops_its_driver(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.held["add"] = threading.Event()
    thread, found = in_thread(lambda: site.conduct(chain, 3, executor=executor))
    assert executor.launched.acquire(timeout=20.0)
    site.client.delete("PipelineRun", "run-1", namespace="team")
    thread.join(20.0)
    assert isinstance(found[0], errors.LeaseLostError)


def test_second_driver_is_refused_while_the_first_one_lives(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.held["add"] = threading.Event()
    thread, found = in_thread(lambda: site.conduct(chain, 1, executor=executor))
    assert executor.launched.acquire(timeout=20.0)
    with pytest.raises(errors.LeaseLostError, match="is being driven by another process"):
        site.conduct(chain, 1)
    executor.held["add"].set()
    thread.join(20.0)
    assert found == [1]


def test_driver_that_was_taken_over_writes_nothing_more(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.held["add"] = threading.Event()
    thread, found = in_thread(lambda: site.conduct(chain, 2, executor=executor))
    assert executor.launched.acquire(timeout=20.0)
    (lease,) = site.client.list("Lease", namespace="team").items
    site.client.delete("Lease", lease["metadata"]["name"], namespace="team")
    assert site.conduct(chain, 2, is_resumed=True) == 2
    before = (site.task_runs(), site.status())
    executor.held["add"].set()
    thread.join(20.0)
    assert isinstance(found[0], errors.LeaseLostError)
    assert (site.task_runs(), site.status()) == before


@uniflow.workflow
def one_way(flag: bool) -> int:
    return add(1, 2) if flag else add(3, 4)


def test_non_deterministic_run_fails_and_can_go_on_when_it_is_mended(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.lost = {"add": 1}

    @uniflow.workflow
    def stop_after(flag: bool) -> int:
        one_way(flag)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.conduct(stop_after, True, executor=executor)
    assert site.status()["state"] == "Killed"
    assert conditions.is_true(site.client.get("PipelineRun", "run-1", namespace="team"), RESUMABLE)
    with pytest.raises(errors.NonDeterminismError, match=r"test_conductor.py:\d+"):
        site.conduct(stop_after, False, is_resumed=True)
    assert (site.status()["state"], site.status()["exceptionType"]) == ("Failed", "System")
    with pytest.raises(KeyboardInterrupt):
        site.conduct(stop_after, True, is_resumed=True)


@uniflow.task(idempotent=False)
def charge(amount: int) -> int:
    return amount


@uniflow.workflow
def buying() -> int | None:
    return charge(7)


@pytest.mark.parametrize(("decision", "result"), [("retry", 7), ("done", None)])
def test_run_with_an_unknown_outcome_goes_on_after_a_decision(site: Site, decision: str, result: int | None) -> None:
    site.create()
    executor = site.executor()
    executor.lost = {"charge": 1}
    with pytest.raises(errors.UnknownOutcomeError):
        site.conduct(buying, executor=executor)
    status = site.status()
    (task_run,) = site.task_runs()
    assert status["state"] == "Failed"
    assert task_run["metadata"]["name"] in status["errorMessage"]
    annotation = {"metadata": {"annotations": {DECISION: decision}}}
    site.client.patch("TaskRun", task_run["metadata"]["name"], annotation, namespace="team")
    assert site.conduct(buying, is_resumed=True) == result
    assert site.status()["state"] == "Succeeded"
    assert not conditions.is_true(site.client.get("PipelineRun", "run-1", namespace="team"), RESUMABLE)


def test_action_resume_runs_a_step_of_unknown_outcome_again(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.lost = {"charge": 1}
    with pytest.raises(errors.UnknownOutcomeError):
        site.conduct(buying, executor=executor)
    site.client.patch("PipelineRun", "run-1", {"spec": {"action": "Resume"}}, namespace="team")
    assert site.conduct(buying, is_resumed=True) == 7


@uniflow.workflow
def asking() -> list[Any]:
    return [uniflow.wait_for_signal("go"), uniflow.wait_for_signal("stay"), uniflow.wait_for_signal("go")]


def test_signals_are_consumed_in_the_order_in_which_they_were_sent(site: Site) -> None:
    site.create()
    site.signal("go", 1)
    thread, found = in_thread(lambda: site.conduct(asking))
    until(lambda: any(one["status"]["state"] == "Running" for one in site.task_runs()))
    site.signal("go", {"deep": [2]})
    site.signal("stay", "here")
    site.signal("go", 3)
    thread.join(20.0)
    assert found == [[1, "here", {"deep": [2]}]]


@uniflow.workflow
def asking_briefly() -> str:
    try:
        return str(uniflow.wait_for_signal("go", timeout_seconds=0.01))
    except TimeoutError:
        return "nobody"


def test_wait_for_a_signal_ends_in_time(site: Site) -> None:
    site.create()
    assert site.conduct(asking_briefly) == "nobody"


def test_run_that_cannot_be_loaded_fails_with_the_reason(site: Site) -> None:
    run = site.create()
    conductor.fail(site.client, run, errors.SourceError("flow.py has no workflow"), conductor.Means({}, site.blobs))
    status = site.status()
    assert (status["state"], status["errorMessage"]) == ("Failed", "flow.py has no workflow")


@uniflow.task
def unstorable() -> None:
    raise errors.StorageError("the disk is full")


@uniflow.workflow
def storing() -> None:
    unstorable()


def test_error_of_a_task_that_is_one_of_ours_too_fails_the_run(site: Site) -> None:
    """It is no failure of the run's own storage, after which the run would be left as it is."""
    site.create()
    with pytest.raises(errors.StorageError):
        site.conduct(storing)
    assert site.status()["state"] == "Failed"
    assert "the disk is full" in site.status()["errorMessage"]
