"""Controllers over a real server: each object gets its turn, failures come again, and nothing runs twice at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import Informer
from michelangelo.runtime import controller
from michelangelo.runtime.controller import Controller, Observation, Source
from michelangelo.runtime.manager import LEADER_NAMESPACE, Manager
from michelangelo.runtime.reconciler import Request, Result, TerminalError
from michelangelo.runtime.recorder import Recorder
from michelangelo.runtime.workqueue import Backoff

DEADLINE_SECONDS = 20.0
Make = Callable[..., Object]


class Scripted:
    """A reconciler that does what the next entry of its script says, and can be waited on."""

    def __init__(self, *script: Result | Exception) -> None:
        self._script = list(script)
        self.calls: list[Request] = []
        self.observations: list[Observation] = []
        self._changed = threading.Condition()

    def reconcile(self, request: Request) -> Result:
        with self._changed:
            self.calls.append(request)
            step = self._script.pop(0) if self._script else Result()
        if isinstance(step, Exception):
            raise step
        return step

    def observe(self, observation: Observation) -> None:
        with self._changed:
            self.observations.append(observation)
            self._changed.notify_all()

    def wait(self, count: int) -> list[str]:
        """The outcomes of the first `count` passes."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.observations) >= count, DEADLINE_SECONDS)
            return [observation.outcome for observation in self.observations]


@pytest.fixture
def informer(client: Client) -> Iterator[Informer]:
    following = Informer(client, "Pipeline")
    following.start()
    assert following.wait_synced(DEADLINE_SECONDS)
    yield following
    following.stop()


@pytest.fixture
def start(client: Client, informer: Informer) -> Iterator[Callable[..., Controller]]:
    started: list[Controller] = []

    def begin(reconciler: Scripted, mapper: controller.Mapper = controller.itself, **options: int) -> Controller:
        one = Controller(
            "test",
            reconciler,
            [Source(informer, mapper)],
            recorder=Recorder(client, "test"),
            backoff=Backoff(first_seconds=0.001),
            observe=reconciler.observe,
            **options,
        )
        one.start()
        started.append(one)
        return one

    yield begin
    for one in started:
        one.stop()


def events(client: Client) -> list[tuple[str, str, int]]:
    found = client.list("Event", namespace="demo").items
    return [(event["reason"], event["message"], event["count"]) for event in found]


def test_present_and_later_objects_are_reconciled(pipeline: Make, start: Callable[..., Controller]) -> None:
    pipeline("a")
    reconciler = Scripted()
    start(reconciler)
    pipeline("b")
    reconciler.wait(2)
    assert set(reconciler.calls) == {Request("demo", "a"), Request("demo", "b")}


def test_failure_comes_again_and_is_told_in_an_event(
    client: Client, pipeline: Make, start: Callable[..., Controller]
) -> None:
    reconciler = Scripted(errors.UnavailableError("away"), RuntimeError("broken"), RuntimeError("broken"), Result())
    pipeline("a")
    start(reconciler)
    assert reconciler.wait(4) == ["error", "error", "error", "success"]
    assert sorted(events(client)) == [
        ("ReconcileError", "RuntimeError: broken", 2),
        ("ReconcileError", "UnavailableError: away", 1),
    ]


def test_conflict_comes_again_without_an_event(
    client: Client, pipeline: Make, start: Callable[..., Controller]
) -> None:
    reconciler = Scripted(errors.ConflictError("too late"))
    pipeline("a")
    start(reconciler)
    assert reconciler.wait(2) == ["conflict", "success"]
    assert events(client) == []


def test_terminal_error_waits_for_a_change(client: Client, pipeline: Make, start: Callable[..., Controller]) -> None:
    reconciler = Scripted(TerminalError("give it a name"))
    pipeline("a")
    start(reconciler)
    assert reconciler.wait(1) == ["terminal"]
    assert events(client) == [("ReconcileFailed", "give it a name", 1)]
    client.patch("Pipeline", "a", {"spec": {"description": "changed"}}, namespace="demo")
    assert reconciler.wait(2) == ["terminal", "success"]


def test_requeue_comes_without_a_change(pipeline: Make, start: Callable[..., Controller]) -> None:
    reconciler = Scripted(Result(requeue_after_seconds=0.001))
    pipeline("a")
    start(reconciler)
    assert reconciler.wait(2) == ["requeued", "success"]


def test_labels_and_owners_lead_to_requests(client: Client) -> None:
    obj: Object = {
        "metadata": {
            "name": "a",
            "namespace": "demo",
            "labels": {"run": "r1"},
            "ownerReferences": [{"kind": "Pipeline", "name": "p1"}, {"kind": "Project", "name": "x"}],
        }
    }
    assert list(controller.label("run")(obj)) == [Request("demo", "r1")]
    assert list(controller.label("absent")(obj)) == []
    assert list(controller.owner("Pipeline")(obj)) == [Request("demo", "p1")]


def test_object_that_lost_a_label_still_leads_to_the_old_request(
    client: Client, pipeline: Make, start: Callable[..., Controller]
) -> None:
    reconciler = Scripted()
    start(reconciler, controller.label("run"))
    pipeline("a", run="r1")
    reconciler.wait(1)
    client.patch("Pipeline", "a", {"metadata": {"labels": {"run": "r2"}}}, namespace="demo")
    reconciler.wait(3)
    assert set(reconciler.calls) == {Request("demo", "r1"), Request("demo", "r2")}


def test_no_object_is_with_two_workers(client: Client, pipeline: Make, start: Callable[..., Controller]) -> None:
    class Guarded(Scripted):
        running: set[Request] = set()
        shared: list[Request] = []
        touched = threading.Event()

        def reconcile(self, request: Request) -> Result:
            if request in self.running:
                self.shared.append(request)
            self.running.add(request)
            if not self.touched.is_set():
                self.touched.set()
                client.patch("Pipeline", "a", {"spec": {"description": "changed"}}, namespace="demo")
            self.running.discard(request)
            return super().reconcile(request)

    reconciler = Guarded()
    start(reconciler, num_workers=4)
    pipeline("a")
    reconciler.wait(2)
    assert not reconciler.shared


def test_stopped_controller_finishes_what_it_has_and_takes_no_more(
    pipeline: Make, start: Callable[..., Controller]
) -> None:
    entered, go = threading.Event(), threading.Event()

    class Slow(Scripted):
        def reconcile(self, request: Request) -> Result:
            entered.set()
            assert go.wait(DEADLINE_SECONDS)
            return super().reconcile(request)

    reconciler = Slow()
    one = start(reconciler, num_workers=1)
    pipeline("a")
    assert entered.wait(DEADLINE_SECONDS)
    pipeline("b")
    stopping = threading.Thread(target=one.stop)
    stopping.start()
    go.set()
    stopping.join(DEADLINE_SECONDS)
    assert not stopping.is_alive()
    assert reconciler.calls == [Request("demo", "a")]
    one.start()  # A restart looks at everything anew.
    reconciler.wait(3)


def test_manager_runs_controllers_over_shared_informers(client: Client, pipeline: Make) -> None:
    manager = Manager(client)
    first, second = Scripted(), Scripted()
    for reconciler in (first, second):
        source = Source(manager.informer("Pipeline"), controller.itself)
        manager.add(Controller("test", reconciler, [source], observe=reconciler.observe))
    assert manager.informer("Pipeline") is manager.informer("Pipeline")
    manager.start()
    assert manager.wait_leading(DEADLINE_SECONDS)
    pipeline("a")
    first.wait(1)
    second.wait(1)
    manager.stop()
    assert not manager.is_leading


def test_one_replica_leads_and_the_other_takes_over(client: Client, pipeline: Make) -> None:
    reconcilers = [Scripted(), Scripted()]
    managers = []
    for reconciler in reconcilers:
        manager = Manager(client, leader_lease="controllers", lease_duration_seconds=1, retry_seconds=0.01)
        source = Source(manager.informer("Pipeline"), controller.itself)
        manager.add(Controller("test", reconciler, [source], observe=reconciler.observe))
        managers.append(manager)
    managers[0].start()
    assert managers[0].wait_leading(DEADLINE_SECONDS)
    managers[1].start()
    pipeline("a")
    reconcilers[0].wait(1)
    assert not managers[1].is_leading
    managers[0].stop()
    assert managers[1].wait_leading(DEADLINE_SECONDS)
    reconcilers[1].wait(1)
    managers[1].stop()
    assert client.list("Lease", namespace=LEADER_NAMESPACE).items == []


def test_manager_that_lost_its_lease_stops_its_controllers_and_asks_again(client: Client, pipeline: Make) -> None:
    reconciler = Scripted()
    manager = Manager(client, leader_lease="controllers", lease_duration_seconds=1, retry_seconds=0.01)
    source = Source(manager.informer("Pipeline"), controller.itself)
    manager.add(Controller("test", reconciler, [source], observe=reconciler.observe))
    manager.start()
    assert manager.wait_leading(DEADLINE_SECONDS)
    watch = client.watch("Lease", namespace=LEADER_NAMESPACE)
    before = watch.next(DEADLINE_SECONDS)
    client.delete("Lease", "controllers", namespace=LEADER_NAMESPACE)
    assert before is not None
    while (event := watch.next(DEADLINE_SECONDS)) is not None:
        if event.type == "ADDED" and event.object["metadata"]["uid"] != before.object["metadata"]["uid"]:
            break
    assert event is not None
    assert manager.wait_leading(DEADLINE_SECONDS)
    pipeline("a")
    reconciler.wait(1)
    manager.stop()
