"""The informer: its cache becomes what the server has, whatever happens to the watch; handlers hear all in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import BY_LABEL, BY_OWNER, Change, Informer
from michelangelo.storage.memory import MemoryStore

DEADLINE_SECONDS = 20.0
Make = Callable[..., Object]


class Heard:
    """A handler that can be waited on."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._changed = threading.Condition()

    def __call__(self, change: Change) -> None:
        with self._changed:
            self.changes.append(change)
            self._changed.notify_all()

    def wait(self, *wanted: tuple[str, str]) -> None:
        def said() -> list[tuple[str, str]]:
            return [(change.type, change.object["metadata"]["name"]) for change in self.changes]

        with self._changed:
            assert self._changed.wait_for(lambda: said()[-len(wanted) :] == list(wanted), DEADLINE_SECONDS), said()


class Flaky:
    """A client whose next watches or lists fail as told."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.failures: list[errors.ApiError] = []
        self.watches: list[Any] = []
        self.lists = 0
        self.opened = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def list(self, *args: Any, **kwargs: Any) -> Any:
        self.lists += 1
        return self._client.list(*args, **kwargs)

    def watch(self, *args: Any, **kwargs: Any) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        watch = self._client.watch(*args, **kwargs)
        self.watches.append(watch)
        self.opened.set()
        return watch


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    memory = MemoryStore()
    yield memory
    memory.close()


@pytest.fixture
def server(store: MemoryStore) -> Client:
    client = InProcessClient(ApiServer(store))
    for name in ("demo", "other"):
        client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return client


@pytest.fixture
def flaky(server: Client) -> Flaky:
    return Flaky(server)


@pytest.fixture
def informer(flaky: Flaky) -> Iterator[Informer]:
    following = Informer(flaky, "Pipeline", backoff_seconds=0.001)
    yield following
    following.stop()


def make(client: Client, name: str, *, namespace: str = "demo", owner: str = "", **labels: str) -> Object:
    metadata: Object = {"name": name, "namespace": namespace, "labels": labels}
    if owner:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Namespace", "name": "demo", "uid": owner}]
    spec = {"manifest": {"filePath": "flow.py"}}
    return client.create({"apiVersion": "michelangelo.api/v2", "kind": "Pipeline", "metadata": metadata, "spec": spec})


def touch(client: Client, name: str) -> None:
    client.patch("Pipeline", name, {"spec": {"description": "touched"}}, namespace="demo")


def test_cache_has_what_was_there_and_follows(server: Client, informer: Informer) -> None:
    make(server, "a")
    heard = Heard()
    informer.add_handler(heard)
    informer.start()
    assert informer.wait_synced(DEADLINE_SECONDS)
    first = informer.get("a", namespace="demo")
    make(server, "b")
    touch(server, "a")
    server.delete("Pipeline", "b", namespace="demo")
    heard.wait(("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b"))
    assert informer.list() == server.list("Pipeline").items
    assert first is not None
    assert "description" not in first["spec"]  # What was handed out is never changed.
    assert heard.changes[2].old is first


def test_late_handler_hears_of_what_is_there(server: Client, informer: Informer) -> None:
    make(server, "a")
    informer.start()
    informer.wait_synced(DEADLINE_SECONDS)
    heard = Heard()
    remove = informer.add_handler(heard)
    heard.wait(("ADDED", "a"))
    remove()
    other = Heard()
    informer.add_handler(other)
    touch(server, "a")
    other.wait(("MODIFIED", "a"))
    assert len(heard.changes) == 1


def test_indexes_follow_labels_and_owners(server: Client, informer: Informer) -> None:
    make(server, "a", owner="u1", tier="gold")
    make(server, "b", namespace="other", tier="gold")
    heard = Heard()
    informer.add_handler(heard)
    informer.start()
    informer.wait_synced(DEADLINE_SECONDS)
    assert {obj["metadata"]["name"] for obj in informer.by_index(BY_LABEL, "tier=gold")} == {"a", "b"}
    assert [obj["metadata"]["name"] for obj in informer.by_index(BY_OWNER, "u1")] == ["a"]
    assert [obj["metadata"]["name"] for obj in informer.list(namespace="other")] == ["b"]
    server.patch("Pipeline", "a", {"metadata": {"labels": {"tier": "tin"}, "ownerReferences": None}}, namespace="demo")
    heard.wait(("MODIFIED", "a"))
    assert [obj["metadata"]["name"] for obj in informer.by_index(BY_LABEL, "tier=gold")] == ["b"]
    assert [obj["metadata"]["name"] for obj in informer.by_index(BY_LABEL, "tier=tin")] == ["a"]
    assert informer.by_index(BY_OWNER, "u1") == []


def test_informer_of_a_selection_sees_objects_enter_and_leave(server: Client) -> None:
    informer = Informer(server, "Pipeline", namespace="demo", label_selector="tier=gold")
    heard = Heard()
    informer.add_handler(heard)
    informer.start()
    make(server, "elsewhere", namespace="other", tier="gold")
    make(server, "a", tier="gold")
    heard.wait(("ADDED", "a"))
    server.patch("Pipeline", "a", {"metadata": {"labels": {"tier": "tin"}}}, namespace="demo")
    heard.wait(("ADDED", "a"), ("DELETED", "a"))
    assert informer.list() == []
    informer.stop()


def test_broken_watch_is_continued_without_a_new_list(server: Client, flaky: Flaky, informer: Informer) -> None:
    heard = Heard()
    informer.add_handler(heard)
    informer.start()
    informer.wait_synced(DEADLINE_SECONDS)
    make(server, "a")
    heard.wait(("ADDED", "a"))
    flaky.failures = [errors.UnavailableError("away"), errors.UnavailableError("still away")]
    flaky.watches[-1].close()
    make(server, "b")
    heard.wait(("ADDED", "a"), ("ADDED", "b"))
    assert flaky.lists == 1
    assert informer.last_error is None


def test_expired_watch_is_made_good_by_a_list(
    server: Client, store: MemoryStore, flaky: Flaky, informer: Informer
) -> None:
    for name in ("gone", "kept", "again"):
        make(server, name)
    heard = Heard()
    informer.add_handler(heard)
    informer.start()
    informer.wait_synced(DEADLINE_SECONDS)
    heard.wait(("ADDED", "again"), ("ADDED", "gone"), ("ADDED", "kept"))
    heard.changes.clear()
    away, back = threading.Event(), threading.Event()

    def pause(*args: Any, **kwargs: Any) -> Any:
        away.set()
        assert back.wait(DEADLINE_SECONDS)
        raise errors.ExpiredError("compacted away")

    assert flaky.opened.wait(DEADLINE_SECONDS)
    flaky.__dict__["watch"] = pause
    flaky.watches[-1].close()
    assert away.wait(DEADLINE_SECONDS)
    server.delete("Pipeline", "gone", namespace="demo")
    server.delete("Pipeline", "again", namespace="demo")
    make(server, "again")
    touch(server, "kept")
    make(server, "new")
    store.compact(store.revision())
    del flaky.__dict__["watch"]
    back.set()
    heard.wait(("DELETED", "gone"), ("DELETED", "again"), ("ADDED", "again"), ("MODIFIED", "kept"), ("ADDED", "new"))
    assert {obj["metadata"]["name"] for obj in informer.list()} == {"again", "kept", "new"}


def test_handler_may_read_another_informer(server: Client) -> None:
    """Two informers whose handlers read each other do not wait for each other for ever."""
    first, second = Informer(server, "Pipeline"), Informer(server, "Namespace")
    heard = Heard()

    def cross(other: Informer) -> Callable[[Change], None]:
        def handle(change: Change) -> None:
            for _ in range(50):
                other.list()
            heard(change)

        return handle

    first.add_handler(cross(second))
    second.add_handler(cross(first))
    first.start()
    second.start()
    for number in range(30):
        make(server, f"p{number}")
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"n{number}"}})
    with heard._changed:
        assert heard._changed.wait_for(lambda: len(heard.changes) == 62, DEADLINE_SECONDS)
    first.stop()
    second.stop()


def test_stopped_informer_hears_nothing_more(server: Client, informer: Informer) -> None:
    make(server, "a")
    heard = Heard()
    informer.add_handler(heard)
    informer.start()
    informer.wait_synced(DEADLINE_SECONDS)
    informer.stop()
    touch(server, "a")
    assert [change.type for change in heard.changes] == ["ADDED"]
    assert informer.get("a", namespace="demo") is not None
