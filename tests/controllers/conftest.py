"""Controllers over a real API server in this process. Only driver processes are played: by `FakeDrivers`, which does
with leases and statuses what a driver does.

Reconcilers are run by hand where the order matters (`Bench`), and by a real Manager where it must not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import Informer
from michelangelo.controllers import assembly
from michelangelo.runtime import leases
from michelangelo.runtime.manager import Manager
from michelangelo.storage.memory import MemoryStore

DEADLINE_SECONDS = 20.0


class Clock:
    """One clock for both kinds of time."""

    def __init__(self) -> None:
        self.start = self.now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return (self.now - self.start).total_seconds()

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class FakeDrivers:
    """`controllers.pipeline_run.Drivers`; each driver is there until it is told to do something."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.alive: dict[tuple[str, str], leases.Lease | None] = {}
        self.refusal: errors.ExecutorError | None = None
        self.on_start: Callable[[Object], None] = lambda run: None

    def start(self, run: Object) -> None:
        if self.refusal is not None:
            raise self.refusal
        metadata = run["metadata"]
        with self._lock:
            self.started.append(metadata["name"])
            self.alive[(metadata["namespace"], metadata["name"])] = None
        self.on_start(run)

    def is_alive(self, namespace: str, name: str) -> bool:
        return (namespace, name) in self.alive

    def stop(self, namespace: str, name: str) -> None:
        with self._lock:
            if self.alive.pop((namespace, name), self) is not self:
                self.stopped.append(name)

    def begin(self, run: Object) -> None:
        """The driver takes its lease and says Running, as the engine does."""
        metadata = run["metadata"]
        run = self._client.get("PipelineRun", metadata["name"], namespace=metadata["namespace"])
        lease = leases.of_run(self._client, run)
        assert lease.acquire()
        self.alive[(metadata["namespace"], metadata["name"])] = lease
        self._write(run, state="Running", driver=lease.identity)

    def finish(self, run: Object, state: str = "Succeeded") -> None:
        metadata = run["metadata"]
        lease = self.alive.pop((metadata["namespace"], metadata["name"]))
        run = self._client.get("PipelineRun", metadata["name"], namespace=metadata["namespace"])
        self._write(run, state=state, endTime="2026-01-31T12:00:00Z")
        if lease is not None:
            lease.release()

    def progress(self, run: Object, total: int) -> None:
        metadata = run["metadata"]
        run = self._client.get("PipelineRun", metadata["name"], namespace=metadata["namespace"])
        self._write(run, stepCounts={"total": total})

    def die(self, run: Object) -> None:
        """kill -9: the lease stays, and its holder is provably dead."""
        metadata = run["metadata"]
        lease = self.alive.pop((metadata["namespace"], metadata["name"]))
        if lease is not None:
            host, boot, _, _, nonce = lease.identity.split("/")
            dead = f"{host}/{boot}/{2**30}/1/{nonce}"
            patch: Object = {"spec": {"holderIdentity": dead}}
            self._client.patch("Lease", lease.name, patch, namespace=lease.namespace)

    def _write(self, run: Object, **fields: Any) -> None:
        self._client.update({**run, "status": {**(run.get("status") or {}), **fields}}, subresource="status")


class Bench:
    """Informers that follow the server, to run single reconcilers by hand once they have caught up."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.informers = {kind: Informer(client, kind) for kind in registry.KINDS}
        for informer in self.informers.values():
            informer.start()
        self.catch_up()

    def __getitem__(self, kind: str) -> Informer:
        return self.informers[kind]

    def catch_up(self) -> None:
        """Wait until every cache shows what the server has now."""
        for kind, informer in self.informers.items():
            assert informer.wait_synced(DEADLINE_SECONDS)
            self._catch_up(kind, informer)

    def _catch_up(self, kind: str, informer: Informer) -> None:
        caught = threading.Event()

        def check(_: object = None) -> None:
            if by_uid(informer.list()) == by_uid(self.client.list(kind).items):
                caught.set()

        remove = informer.add_handler(check)
        check()
        assert caught.wait(DEADLINE_SECONDS)
        remove()

    def close(self) -> None:
        for informer in self.informers.values():
            informer.stop()


def by_uid(objects: Any) -> dict[str, str]:
    return {obj["metadata"]["uid"]: obj["metadata"]["resourceVersion"] for obj in objects}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client() -> Iterator[Client]:
    store = MemoryStore()
    inprocess = InProcessClient(ApiServer(store))
    inprocess.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}})
    yield inprocess
    inprocess.close()
    store.close()


@pytest.fixture
def bench(client: Client) -> Iterator[Bench]:
    one = Bench(client)
    yield one
    one.close()


@pytest.fixture
def drivers(client: Client) -> FakeDrivers:
    return FakeDrivers(client)


@pytest.fixture
def manager(client: Client, drivers: FakeDrivers) -> Iterator[Manager]:
    """All controllers at work."""
    running = Manager(client)
    assembly.add_all(running, drivers)
    running.start()
    assert running.wait_leading(DEADLINE_SECONDS)
    yield running
    running.stop()


@pytest.fixture
def create(client: Client) -> Callable[..., Object]:
    """Creates an object of any kind in `demo`, from its spec."""

    def make(
        kind: str, name: str, spec: Object | None = None, *, owner: Object | None = None, **metadata: Any
    ) -> Object:
        document: Object = {
            "apiVersion": registry.get(kind).api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": "demo", **metadata},
        }
        if spec is not None:
            document["spec"] = spec
        if owner is not None:
            reference = {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": True,
            }
            document["metadata"]["ownerReferences"] = [reference]
        return client.create(document)

    return make


@pytest.fixture
def until(client: Client) -> Callable[..., Object]:
    """Waits, on a watch, until an object is as wanted."""

    def wait(kind: str, name: str, wanted: Callable[[Object], bool], namespace: str = "demo") -> Object:
        space = namespace if registry.get(kind).namespaced else ""
        watch = client.watch(kind, namespace=space, field_selector=f"metadata.name={name}")
        try:
            while (event := watch.next(DEADLINE_SECONDS)) is not None:
                if event.type != "DELETED" and wanted(event.object):
                    return event.object
        finally:
            watch.close()
        raise AssertionError(f"{kind} {name} did not become as wanted")

    return wait


@pytest.fixture
def until_gone(client: Client) -> Callable[..., None]:
    """Waits, on a watch, until an object is no more."""

    def wait(kind: str, name: str, namespace: str = "demo") -> None:
        space = namespace if registry.get(kind).namespaced else ""
        watch = client.watch(kind, namespace=space, field_selector=f"metadata.name={name}")
        try:
            try:
                client.get(kind, name, namespace=space)
            except errors.NotFoundError:
                return
            while (event := watch.next(DEADLINE_SECONDS)) is not None:
                if event.type == "DELETED":
                    return
        finally:
            watch.close()
        raise AssertionError(f"{kind} {name} is still there")

    return wait
