"""Owners and their dependents: background, foreground, orphan; by uid and not by name; never too much."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from michelangelo.client.client import Client, Object
from michelangelo.client.informer import Change, Informer
from michelangelo.controllers.garbage_collector import GarbageCollector
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request

DEADLINE_SECONDS = 20.0
Create = Callable[..., Object]
Gone = Callable[..., None]
MANIFEST: Object = {"manifest": {"filePath": "flow.py"}}  # Not to be run: no other controller makes anything of it.


@pytest.fixture
def tree(create: Create, manager: Manager) -> Object:
    """owner ← child ← grandchild, and a bystander; the collector knows of them all."""
    owner = create("Pipeline", "owner", MANIFEST)
    child = create("Pipeline", "child", MANIFEST, owner=owner)
    create("CachedOutput", "grandchild", {}, owner=child)
    create("Pipeline", "bystander", MANIFEST)
    for kind, name in (("CachedOutput", "grandchild"), ("Pipeline", "bystander")):
        wait_until_known(manager.informer(kind), name)
    return owner


def wait_until_known(informer: Informer, name: str) -> None:
    known = threading.Event()

    def notice(change: Change) -> None:
        if change.object["metadata"]["name"] == name:
            known.set()

    stop = informer.add_handler(notice)
    assert known.wait(DEADLINE_SECONDS)
    stop()


def names(client: Client) -> set[str]:
    return {
        obj["metadata"]["name"]
        for kind in ("Pipeline", "CachedOutput")
        for obj in client.list(kind, namespace="demo").items
    }


def test_background_deletion_takes_the_whole_tree(
    client: Client, manager: Manager, tree: Object, until_gone: Gone
) -> None:
    client.delete("Pipeline", "owner", namespace="demo")
    until_gone("CachedOutput", "grandchild")
    until_gone("Pipeline", "child")
    assert names(client) == {"bystander"}


def test_foreground_deletion_goes_from_the_leaves(
    client: Client, manager: Manager, tree: Object, until_gone: Gone
) -> None:
    expected = {"Pipeline": 2, "CachedOutput": 1}
    opened = {kind: client.watch(kind, namespace="demo") for kind in expected}
    client.delete("Pipeline", "owner", namespace="demo", propagation="Foreground")
    until_gone("Pipeline", "owner")
    gone: dict[str, int] = {}
    for kind, count in expected.items():
        while count and (event := opened[kind].next(DEADLINE_SECONDS)) is not None:
            if event.type == "DELETED":
                gone[event.object["metadata"]["name"]] = int(event.object["metadata"]["resourceVersion"])
                count -= 1
        opened[kind].close()
    assert sorted(gone, key=gone.__getitem__) == ["grandchild", "child", "owner"]
    assert names(client) == {"bystander"}


def test_foreground_deletion_does_not_wait_for_who_does_not_block(
    client: Client, manager: Manager, create: Create, until_gone: Gone
) -> None:
    owner = create("Pipeline", "owner", MANIFEST)
    create("Pipeline", "child", MANIFEST, owner=owner, finalizers=["example.com/hold"])
    patch = [{"op": "replace", "path": "/metadata/ownerReferences/0/blockOwnerDeletion", "value": False}]
    client.patch("Pipeline", "child", patch, namespace="demo", patch_type="json")
    client.delete("Pipeline", "owner", namespace="demo", propagation="Foreground")
    until_gone("Pipeline", "owner")
    assert "child" in names(client)


def test_orphaned_dependents_stay_without_the_reference(
    client: Client, manager: Manager, tree: Object, until_gone: Gone
) -> None:
    client.delete("Pipeline", "owner", namespace="demo", propagation="Orphan")
    until_gone("Pipeline", "owner")
    assert names(client) == {"child", "grandchild", "bystander"}
    assert "ownerReferences" not in client.get("Pipeline", "child", namespace="demo")["metadata"]


def test_object_with_another_owner_stays_and_loses_the_dead_one(
    client: Client, manager: Manager, create: Create, until: Callable[..., Object]
) -> None:
    first, second = create("Pipeline", "first", MANIFEST), create("Pipeline", "second", MANIFEST)
    shared = create("Pipeline", "shared", MANIFEST, owner=first)
    references = [*shared["metadata"]["ownerReferences"], dict(shared["metadata"]["ownerReferences"][0])]
    references[1].update(name="second", uid=second["metadata"]["uid"])
    client.patch("Pipeline", "shared", {"metadata": {"ownerReferences": references}}, namespace="demo")
    client.delete("Pipeline", "first", namespace="demo")
    kept = until("Pipeline", "shared", lambda obj: len(obj["metadata"]["ownerReferences"]) == 1)
    assert kept["metadata"]["ownerReferences"][0]["name"] == "second"


def test_dependent_made_after_its_owner_went_is_collected(
    client: Client, manager: Manager, create: Create, until_gone: Gone
) -> None:
    owner = create("Pipeline", "owner", MANIFEST)
    client.delete("Pipeline", "owner", namespace="demo")
    create("Pipeline", "late", MANIFEST, owner=owner)
    until_gone("Pipeline", "late")


def test_later_object_of_the_same_name_is_not_the_owner(
    client: Client, manager: Manager, create: Create, until_gone: Gone
) -> None:
    old = create("Pipeline", "owner", MANIFEST)
    client.delete("Pipeline", "owner", namespace="demo")
    new = create("Pipeline", "owner", MANIFEST)
    create("Pipeline", "of-old", MANIFEST, owner=old)
    create("Pipeline", "of-new", MANIFEST, owner=new)
    until_gone("Pipeline", "of-old")
    assert names(client) == {"owner", "of-new"}


def test_cluster_scoped_owner_is_found(client: Client, manager: Manager, create: Create, until_gone: Gone) -> None:
    namespace = client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "owner"}})
    create("Pipeline", "child", MANIFEST, owner=namespace)
    create("Pipeline", "marker", MANIFEST, owner={**namespace, "metadata": {"name": "owner", "uid": "gone"}})
    until_gone("Pipeline", "marker")
    assert names(client) == {"child"}
    client.delete("Namespace", "owner")
    until_gone("Pipeline", "child")


def test_owner_of_an_unknown_kind_is_left_alone(client: Client, bench: Any, create: Create) -> None:
    owner: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "uid": "u"}}
    create("Pipeline", "child", MANIFEST, owner=owner)
    bench.catch_up()
    GarbageCollector(client, bench.informers).reconcile(Request("demo", "child", "Pipeline"))
    assert names(client) == {"child"}


def test_cache_that_is_behind_deletes_nothing(client: Client, bench: Any, create: Create) -> None:
    """The owner is not in the cache yet: the server knows it."""
    owner = create("Pipeline", "owner", MANIFEST)
    create("CachedOutput", "child", {}, owner=owner)
    bench.catch_up()
    bench["Pipeline"].stop()
    bench["Pipeline"]._objects.clear()
    GarbageCollector(client, bench.informers).reconcile(Request("demo", "child", "CachedOutput"))
    assert names(client) == {"owner", "child"}
