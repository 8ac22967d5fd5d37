"""Runs: pinned and checked before anything starts, driven by one driver at a time, taken up again when it is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.controllers.pipeline_run import MAX_STARTS, PipelineRunReconciler
from michelangelo.meta import conditions, labels
from michelangelo.runtime import leases, processes
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request, Result

Create = Callable[..., Object]
PARAMETERS: Object = {
    "type": "object",
    "properties": {"data": {"type": "string"}, "epochs": {"type": "integer", "default": 3}},
    "required": ["data"],
    "additionalProperties": False,
}
SPEC: Object = {
    "manifest": {
        "type": "Uniflow",
        "filePath": "flow.py",
        "uniflowFunction": "train",
        "sourceDigest": f"sha256:{'a' * 64}",
        "parameters": PARAMETERS,
    }
}
INPUT: Object = {"kwArgs": {"data": "d"}}
BY_NAME: Object = {"pipeline": {"name": "p"}, "input": INPUT}


@pytest.fixture
def reconciler(bench: Any, drivers: Any, clock: Any) -> PipelineRunReconciler:
    return PipelineRunReconciler(
        bench.client,
        bench["PipelineRun"],
        bench["Lease"],
        drivers,
        clock=clock,
        monotonic=clock.monotonic,
    )


@pytest.fixture
def look(bench: Any, reconciler: PipelineRunReconciler) -> Callable[[], Result]:
    def reconcile() -> Result:
        bench.catch_up()
        result = reconciler.reconcile(Request("demo", "r"))
        bench.catch_up()
        return result

    return reconcile


def stored(client: Client) -> Object:
    return client.get("PipelineRun", "r", namespace="demo")


def state(client: Client) -> str:
    return str((stored(client).get("status") or {}).get("state") or "")


# --- before the start -------------------------------------------------------------------------------------


def test_new_run_is_pinned_and_driven(client: Client, create: Create, drivers: Any, look: Callable[[], Result]) -> None:
    pipeline = create("Pipeline", "p", SPEC)
    create("PipelineRun", "r", BY_NAME)
    drivers.on_start = lambda run: statuses.append(run["status"]["state"])
    statuses: list[str] = []
    look()
    assert (drivers.started, statuses) == (["r"], ["Pending"])
    run = stored(client)
    assert run["status"]["sourcePipeline"]["pipeline"]["spec"] == pipeline["spec"]
    assert run["status"]["sourceDigest"] == f"sha256:{'a' * 64}"
    assert run["metadata"]["labels"] == {
        "pipeline.michelangelo/name": "p",
        "michelangelo/revision": f"pipeline-p-{'a' * 12}",
    }
    assert run["metadata"]["ownerReferences"][0]["uid"] == pipeline["metadata"]["uid"]
    look()
    assert drivers.started == ["r"]


def test_development_run_carries_its_own_pipeline(
    client: Client, create: Create, drivers: Any, look: Callable[[], Result]
) -> None:
    create("PipelineRun", "r", {"pipelineSpec": SPEC, "input": INPUT})
    look()
    assert drivers.started == ["r"]
    source = stored(client)["status"]["sourcePipeline"]["pipeline"]
    assert (source["metadata"]["name"], source["spec"]) == ("devrun-r", SPEC)


def test_run_of_an_older_revision_runs_that_one(
    client: Client, bench: Any, create: Create, manager: Manager, until: Callable[..., Object]
) -> None:
    create("Pipeline", "p", SPEC)
    first = until("Pipeline", "p", lambda obj: "latestRevision" in (obj.get("status") or {}))
    revision = first["status"]["latestRevision"]["name"]
    client.patch("Pipeline", "p", {"spec": {"description": "newer"}}, namespace="demo")
    create("PipelineRun", "r", {**BY_NAME, "revision": {"name": revision}})
    run = until("PipelineRun", "r", lambda obj: "sourcePipeline" in (obj.get("status") or {}))
    assert run["status"]["sourcePipeline"]["pipeline"]["spec"] == SPEC
    assert run["metadata"]["labels"]["michelangelo/revision"] == revision


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"pipeline": {"name": "absent"}}, "there is no pipeline absent in project demo"),
        ({**BY_NAME, "revision": {"name": "absent"}}, "pipeline p has no revision absent"),
        ({"pipeline": {"name": "p", "namespace": "elsewhere"}}, "own project"),
        ({"pipeline": {"name": "p"}}, "spec.input.kwArgs.data: is missing"),
        ({**BY_NAME, "input": {"kwArgs": {"data": 5, "epocs": 1}}}, "must be string, not 5"),
        ({"pipelineSpec": {"manifest": {}}}, "spec.manifest.filePath"),
    ],
)
def test_request_that_cannot_be_run_fails_before_anything_starts(
    client: Client, create: Create, drivers: Any, look: Callable[[], Result], spec: Object, words: str
) -> None:
    create("Pipeline", "p", SPEC)
    create("PipelineRun", "r", spec)
    look()
    status = stored(client)["status"]
    assert (status["state"], status["exceptionType"]) == ("Failed", "User")
    assert words in status["errorMessage"]
    assert status["endTime"] == "2026-01-31T12:00:00Z"
    assert drivers.started == []
    look()
    assert len(client.list("Event", namespace="demo").items) == 1


def test_run_killed_before_its_start_never_starts(
    client: Client, create: Create, drivers: Any, look: Callable[[], Result]
) -> None:
    create("Pipeline", "p", SPEC)
    create("PipelineRun", "r", {**BY_NAME, "kill": True})
    look()
    assert (state(client), drivers.started) == ("Killed", [])


def test_driver_that_cannot_be_started_is_tried_again_and_given_up(
    client: Client, create: Create, drivers: Any, clock: Any, look: Callable[[], Result]
) -> None:
    create("Pipeline", "p", SPEC)
    create("PipelineRun", "r", BY_NAME)
    drivers.refusal = errors.ExecutorError("no more processes")
    for _ in range(MAX_STARTS):
        with pytest.raises(errors.ExecutorError):
            look()
        clock.advance(120)
    look()
    status = stored(client)["status"]
    assert (status["state"], status["exceptionType"]) == ("Failed", "System")


# --- whose run it is --------------------------------------------------------------------------------------


def test_run_with_a_driver_is_left_alone(
    client: Client, create: Create, drivers: Any, look: Callable[[], Result]
) -> None:
    create("Pipeline", "p", SPEC)
    create("PipelineRun", "r", BY_NAME)
    drivers.on_start = drivers.begin
    look()
    before = stored(client)
    assert look().requeue_after_seconds > 0
    assert stored(client) == before
    drivers.finish(before)
    look()
    assert (state(client), drivers.started) == ("Succeeded", ["r"])


def test_run_of_a_living_process_elsewhere_is_left_alone(
    client: Client, create: Create, drivers: Any, clock: Any, look: Callable[[], Result]
) -> None:
    """`python flow.py`: its creator has the lease, and no controller has ever seen the run before."""
    run = create("PipelineRun", "r", {"pipelineSpec": SPEC})
    lease = leases.of_run(client, run)
    lease.acquire()
    for _ in range(5):
        assert look().requeue_after_seconds > 0
        clock.advance(14)
        lease.renew()
    assert (state(client), drivers.started) == ("", [])


def test_creator_that_announces_itself_gets_the_time_to_take_its_lease(
    client: Client, create: Create, drivers: Any, clock: Any, look: Callable[[], Result]
) -> None:
    annotations = {labels.DRIVER: str(processes.of_this_process())}
    create("PipelineRun", "r", {"pipelineSpec": SPEC, "input": INPUT}, annotations=annotations)
    look()
    assert drivers.started == []
    clock.advance(15)
    look()
    assert drivers.started == ["r"]


def test_creator_that_died_is_succeeded_at_once(
    client: Client, create: Create, drivers: Any, look: Callable[[], Result]
) -> None:
    dead = replace(processes.of_this_process(), started="1")
    spec = {"pipelineSpec": SPEC, "input": INPUT}
    create("PipelineRun", "r", spec, annotations={labels.DRIVER: str(dead)})
    look()
    assert drivers.started == ["r"]


def test_lease_that_is_not_renewed_runs_out(
    client: Client, create: Create, drivers: Any, clock: Any, look: Callable[[], Result]
) -> None:
    run = create("PipelineRun", "r", {"pipelineSpec": SPEC, "input": INPUT})
    leases.of_run(client, run).acquire()
    look()
    clock.advance(14.9)
    look()
    assert drivers.started == []
    clock.advance(0.2)
    look()
    assert drivers.started == ["r"]


# --- a driver that is gone --------------------------------------------------------------------------------


def test_dead_driver_is_replaced_after_a_pause(
    client: Client, create: Create, drivers: Any, clock: Any, look: Callable[[], Result]
) -> None:
    create("Pipeline", "p", SPEC)
    run = create("PipelineRun", "r", BY_NAME)
    drivers.on_start = drivers.begin
    look()
    drivers.die(run)
    assert look() == Result(requeue_after_seconds=1.0)
    clock.advance(1)
    look()
    assert drivers.started == ["r", "r"]
    assert state(client) == "Running"
    assert reasons(client) == ["DriverStarted", "DriverRestarted"]
    event = client.list("Event", namespace="demo", field_selector="reason=DriverRestarted").items[0]
    assert event["reason"] == "DriverRestarted"


def test_run_that_loses_every_driver_fails_in_the_end(
    client: Client, create: Create, drivers: Any, clock: Any, look: Callable[[], Result]
) -> None:
    create("Pipeline", "p", SPEC)
    run = create("PipelineRun", "r", BY_NAME)
    drivers.on_start = drivers.begin
    for _ in range(MAX_STARTS):
        look()
        drivers.die(run)
        clock.advance(60)
    look()
    status = stored(client)["status"]
    assert (status["state"], status["exceptionType"]) == ("Failed", "System")
    assert f"ended {MAX_STARTS} times" in status["errorMessage"]
    assert len(drivers.started) == MAX_STARTS


def test_run_that_gets_further_may_lose_any_number_of_drivers(
    client: Client, create: Create, drivers: Any, clock: Any, look: Callable[[], Result]
) -> None:
    create("Pipeline", "p", SPEC)
    run = create("PipelineRun", "r", BY_NAME)
    drivers.on_start = drivers.begin
    for number in range(MAX_STARTS * 2):
        look()
        drivers.progress(run, number + 1)
        drivers.die(run)
        clock.advance(60)
    look()
    assert state(client) == "Running"
    assert len(drivers.started) == MAX_STARTS * 2 + 1


def test_kill_is_the_drivers_business_while_there_is_one(
    client: Client, create: Create, drivers: Any, clock: Any, look: Callable[[], Result]
) -> None:
    create("Pipeline", "p", SPEC)
    run = create("PipelineRun", "r", BY_NAME)
    drivers.on_start = drivers.begin
    look()
    client.patch("PipelineRun", "r", {"spec": {"kill": True}}, namespace="demo")
    look()
    assert state(client) == "Running"
    drivers.die(run)
    clock.advance(60)
    look()
    assert (state(client), drivers.started) == ("Killed", ["r"])


def reasons(client: Client) -> list[str]:
    """Of the events, oldest first."""
    events = client.list("Event", namespace="demo").items
    return [event["reason"] for event in sorted(events, key=lambda one: int(one["metadata"]["resourceVersion"]))]


def test_run_tells_its_story_in_events(
    client: Client, create: Create, drivers: Any, look: Callable[[], Result]
) -> None:
    run = create("PipelineRun", "r", {"pipelineSpec": SPEC, "input": INPUT})
    drivers.on_start = drivers.begin
    look()
    drivers.finish(run, "Succeeded")
    look()
    look()
    assert reasons(client) == ["DriverStarted", "Succeeded"]


def test_deleted_run_loses_its_driver(client: Client, create: Create, drivers: Any, look: Callable[[], Result]) -> None:
    create("PipelineRun", "r", {"pipelineSpec": SPEC, "input": INPUT})
    drivers.on_start = drivers.begin
    look()
    client.delete("PipelineRun", "r", namespace="demo")
    look()
    assert drivers.stopped == ["r"]


def test_run_that_stopped_for_a_decision_goes_on_when_told(
    client: Client, create: Create, drivers: Any, look: Callable[[], Result]
) -> None:
    run = create("PipelineRun", "r", {"pipelineSpec": SPEC, "input": INPUT})
    drivers.on_start = drivers.begin
    look()
    drivers.finish(run, "Failed")
    failed = stored(client)
    conditions.set(failed, "Resumable", "True", reason="UnknownOutcome", message="did step 3 run?")
    client.update(failed, subresource="status")
    look()
    assert drivers.started == ["r"]
    client.patch("PipelineRun", "r", {"spec": {"action": "Resume"}}, namespace="demo")
    look()
    assert drivers.started == ["r", "r"]
    # It stops a second time: that needs a decision of its own.
    drivers.finish(stored(client), "Failed")
    failed = stored(client)
    conditions.remove(failed, "Resumable")
    conditions.set(failed, "Resumable", "True", reason="UnknownOutcome", message="did step 5 run?")
    client.update(failed, subresource="status")
    look()
    assert drivers.started == ["r", "r"]


# --- any order of events ----------------------------------------------------------------------------------

STEPS = ("look", "die", "wait", "progress", "edit", "stale")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=8), number=st.integers(min_value=0, max_value=10**9))
def test_whatever_happens_on_the_way_the_run_ends_the_same(
    client: Client, bench: Any, drivers: Any, clock: Any, create: Create, steps: list[str], number: int
) -> None:
    """Looks missed or repeated, drivers lost, caches behind: one driver at a time, the pinned source, Succeeded."""
    name = f"r{number}"
    if not client.list("Pipeline", namespace="demo").items:
        create("Pipeline", "p", SPEC)
    pinned = client.get("Pipeline", "p", namespace="demo")["spec"]
    for obj in client.list("PipelineRun", namespace="demo").items:
        client.delete("PipelineRun", obj["metadata"]["name"], namespace="demo")
    run = create("PipelineRun", name, BY_NAME)
    drivers.on_start = drivers.begin

    def fresh() -> PipelineRunReconciler:
        return PipelineRunReconciler(
            client,
            bench["PipelineRun"],
            bench["Lease"],
            drivers,
            max_starts=100,
            clock=clock,
            monotonic=clock.monotonic,
        )

    reconciler = fresh()

    def look(*, stale: bool = False) -> None:
        if not stale:
            bench.catch_up()
        try:
            reconciler.reconcile(Request("demo", name))
        except errors.ConflictError:
            pass  # The cache was behind; the controller would come again.
        bench.catch_up()

    look()
    for step in steps:
        is_driven = ("demo", name) in drivers.alive
        if step == "die" and is_driven:
            drivers.die(run)
        elif step == "progress" and is_driven:
            drivers.progress(run, len(drivers.started))
        elif step == "wait":
            clock.advance(60)
        elif step == "edit":
            patch: Object = {"spec": {"description": f"edited {clock.monotonic()}"}}
            client.patch("Pipeline", "p", patch, namespace="demo")
        else:
            if step == "stale":
                reconciler = fresh()
            look(stale=step == "stale")
        assert len(client.list("Lease", namespace="demo", label_selector=f"{labels.PIPELINE_RUN}={name}").items) <= 1
    while ("demo", name) not in drivers.alive:
        clock.advance(60)
        look()
    drivers.finish(run)
    clock.advance(60)
    look()
    status = client.get("PipelineRun", name, namespace="demo")["status"]
    assert status["state"] == "Succeeded"
    assert status["sourcePipeline"]["pipeline"]["spec"] == pinned
    assert ("demo", name) not in drivers.alive
    assert client.list("Lease", namespace="demo").items == []
