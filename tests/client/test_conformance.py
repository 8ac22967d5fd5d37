"""What every client does, whatever is behind it: the Client protocol as tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.client.client import Client, Object, Watch, WatchEvent

DEADLINE_SECONDS = 20.0
Make = Callable[..., Object]


def names(objects: Any) -> list[str]:
    return sorted(obj["metadata"]["name"] for obj in objects)


def following(watch: Watch) -> WatchEvent:
    """The next event that is no bookmark."""
    while (event := watch.next(DEADLINE_SECONDS)) is not None:
        if event.type != "BOOKMARK":
            return event
    raise AssertionError("no event came")


# --- one object -------------------------------------------------------------------------------------------


def test_created_object_can_be_got(client: Client, namespace: str, pipeline: Make) -> None:
    created = client.create(pipeline("a"))
    assert created["metadata"]["uid"]
    assert created["metadata"]["resourceVersion"]
    assert created["metadata"]["generation"] == 1
    assert client.get("Pipeline", "a", namespace=namespace) == created


def test_create_makes_up_a_name(client: Client, pipeline: Make) -> None:
    document = pipeline("")
    del document["metadata"]["name"]
    document["metadata"]["generateName"] = "made-"
    first, second = client.create(document), client.create(document)
    assert first["metadata"]["name"].startswith("made-")
    assert first["metadata"]["name"] != second["metadata"]["name"]


def test_create_twice_is_refused(client: Client, pipeline: Make) -> None:
    client.create(pipeline("a"))
    with pytest.raises(errors.AlreadyExistsError, match='"a" already exists'):
        client.create(pipeline("a"))


def test_create_in_missing_namespace_is_refused(client: Client, pipeline: Make) -> None:
    document = pipeline("a")
    document["metadata"]["namespace"] = "no-such-namespace"
    with pytest.raises(errors.NotFoundError, match="no-such-namespace"):
        client.create(document)


def test_invalid_object_is_refused_with_the_field(client: Client, namespace: str, pipeline: Make) -> None:
    document = pipeline("a")
    document["spec"]["manifest"]["filePath"] = 5
    with pytest.raises(errors.InvalidError) as caught:
        client.create(document)
    assert "spec.manifest.filePath" in [error.path for error in caught.value.errors]
    assert client.list("Pipeline", namespace=namespace).items == []


def test_missing_object_is_not_found(client: Client, namespace: str) -> None:
    with pytest.raises(errors.NotFoundError, match='"absent" not found'):
        client.get("Pipeline", "absent", namespace=namespace)
    with pytest.raises(errors.NotFoundError):
        client.patch("Pipeline", "absent", {"spec": {}}, namespace=namespace)
    with pytest.raises(errors.NotFoundError):
        client.delete("Pipeline", "absent", namespace=namespace)


def test_unknown_kind_is_not_found(client: Client) -> None:
    with pytest.raises(errors.NotFoundError, match="there is no kind 'Pipelin'"):
        client.get("Pipelin", "a", namespace="b")


@pytest.mark.parametrize(("name", "namespace"), [("a", ""), ("", "b"), ("..", "b")])
def test_what_names_no_object_is_refused_unsent(client: Client, name: str, namespace: str) -> None:
    with pytest.raises(errors.BadRequestError):
        client.get("Pipeline", name, namespace=namespace)
    with pytest.raises(errors.BadRequestError):
        client.delete("Pipeline", name, namespace=namespace)


def test_update_replaces_and_counts_generations(client: Client, pipeline: Make) -> None:
    obj = client.create(pipeline("a"))
    obj["spec"]["description"] = "second"
    updated = client.update(obj)
    assert updated["spec"]["description"] == "second"
    assert updated["metadata"]["generation"] == 2
    assert updated["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]


def test_update_from_an_older_version_is_a_conflict(client: Client, namespace: str, pipeline: Make) -> None:
    old = client.create(pipeline("a"))
    client.patch("Pipeline", "a", {"spec": {"description": "theirs"}}, namespace=namespace)
    old["spec"]["description"] = "mine"
    with pytest.raises(errors.ConflictError):
        client.update(old)
    assert client.get("Pipeline", "a", namespace=namespace)["spec"]["description"] == "theirs"


def test_of_racing_updates_one_wins(client: Client, namespace: str, pipeline: Make) -> None:
    obj = client.create(pipeline("a"))

    def write(number: int) -> bool:
        try:
            client.update({**obj, "spec": {**obj["spec"], "description": str(number)}})
        except errors.ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    stored = client.get("Pipeline", "a", namespace=namespace)
    assert stored["spec"]["description"] == str(won.index(True))


def test_status_and_the_rest_are_written_apart(client: Client, namespace: str, pipeline: Make) -> None:
    obj = client.create({**pipeline("a"), "status": {"state": "Ready"}})
    assert "status" not in obj
    obj["status"] = {"state": "Ready"}
    obj["spec"]["description"] = "not through the status"
    obj = client.update(obj, subresource="status")
    assert obj["status"]["state"] == "Ready"
    assert obj["spec"]["description"] == "first"
    assert obj["metadata"]["generation"] == 1
    obj["status"]["state"] = "Error"
    assert client.update(obj)["status"]["state"] == "Ready"
    patched = client.patch("Pipeline", "a", {"status": {"state": "Error"}}, namespace=namespace, subresource="status")
    assert patched["status"]["state"] == "Error"


def test_merge_patch_changes_and_removes(client: Client, namespace: str, pipeline: Make) -> None:
    client.create(pipeline("a", one="1", two="2"))
    patch: Object = {"metadata": {"labels": {"one": None, "three": "3"}}, "spec": {"description": "patched"}}
    patched = client.patch("Pipeline", "a", patch, namespace=namespace)
    assert patched["metadata"]["labels"] == {"two": "2", "three": "3"}
    assert patched["spec"]["description"] == "patched"


def test_json_patch_tests_before_it_changes(client: Client, namespace: str, pipeline: Make) -> None:
    client.create(pipeline("a"))
    replace = {"op": "replace", "path": "/spec/description", "value": "patched"}
    patched = client.patch("Pipeline", "a", [replace], namespace=namespace, patch_type="json")
    assert patched["spec"]["description"] == "patched"
    refuted = [{"op": "test", "path": "/spec/description", "value": "first"}, {**replace, "value": "again"}]
    with pytest.raises(errors.ApiError):
        client.patch("Pipeline", "a", refuted, namespace=namespace, patch_type="json")
    assert client.get("Pipeline", "a", namespace=namespace)["spec"]["description"] == "patched"


def test_dry_run_writes_nothing(client: Client, namespace: str, pipeline: Make) -> None:
    assert client.create(pipeline("a"), dry_run=True)["metadata"]["uid"]
    assert client.list("Pipeline", namespace=namespace).items == []
    stored = client.create(pipeline("a"))
    patch: Object = {"spec": {"description": "tried"}}
    tried = client.patch("Pipeline", "a", patch, namespace=namespace, dry_run=True)
    assert tried["spec"]["description"] == "tried"
    assert client.get("Pipeline", "a", namespace=namespace) == stored


# --- deleting ---------------------------------------------------------------------------------------------


def test_deleted_object_is_gone(client: Client, namespace: str, pipeline: Make) -> None:
    client.create(pipeline("a"))
    client.delete("Pipeline", "a", namespace=namespace)
    with pytest.raises(errors.NotFoundError):
        client.get("Pipeline", "a", namespace=namespace)


def test_delete_checks_its_preconditions(client: Client, namespace: str, pipeline: Make) -> None:
    obj = client.create(pipeline("a"))
    with pytest.raises(errors.ConflictError):
        client.delete("Pipeline", "a", namespace=namespace, uid="another")
    client.patch("Pipeline", "a", {"spec": {"description": "newer"}}, namespace=namespace)
    version = obj["metadata"]["resourceVersion"]
    with pytest.raises(errors.ConflictError):
        client.delete("Pipeline", "a", namespace=namespace, resource_version=version)
    client.delete("Pipeline", "a", namespace=namespace, uid=obj["metadata"]["uid"])


def test_finalizer_keeps_a_deleted_object_until_it_is_taken_away(
    client: Client, namespace: str, pipeline: Make
) -> None:
    document = pipeline("a")
    document["metadata"]["finalizers"] = ["example.com/hold"]
    client.create(document)
    client.delete("Pipeline", "a", namespace=namespace)
    held = client.get("Pipeline", "a", namespace=namespace)
    assert held["metadata"]["deletionTimestamp"]
    client.patch("Pipeline", "a", {"metadata": {"finalizers": None}}, namespace=namespace)
    with pytest.raises(errors.NotFoundError):
        client.get("Pipeline", "a", namespace=namespace)


@pytest.mark.parametrize(("propagation", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
def test_propagation_is_left_to_the_garbage_collector(
    client: Client, namespace: str, pipeline: Make, propagation: Any, finalizer: str
) -> None:
    client.create(pipeline("a"))
    client.delete("Pipeline", "a", namespace=namespace, propagation=propagation)
    marked = client.get("Pipeline", "a", namespace=namespace)
    assert marked["metadata"]["finalizers"] == [finalizer]
    assert marked["metadata"]["deletionTimestamp"]


def test_namespace_goes_when_it_is_finalized(client: Client, namespace: str) -> None:
    client.delete("Namespace", namespace)
    terminating = client.get("Namespace", namespace)
    assert terminating["status"]["phase"] == "Terminating"
    terminating["spec"]["finalizers"] = []
    client.update(terminating, subresource="finalize")
    with pytest.raises(errors.NotFoundError):
        client.get("Namespace", namespace)


def test_project_comes_with_its_namespace(client: Client, namespace: str) -> None:
    name = f"{namespace}-project"
    document = {"apiVersion": "michelangelo.api/v2", "kind": "Project", "metadata": {"name": name}, "spec": {}}
    created = client.create(document)
    assert created["metadata"]["namespace"] == name
    assert client.get("Namespace", name)["status"]["phase"] == "Active"


# --- lists ------------------------------------------------------------------------------------------------


def test_list_selects_by_labels_and_fields(client: Client, namespace: str, pipeline: Make) -> None:
    for name, tier in (("a", "gold"), ("b", "gold"), ("c", "tin")):
        client.create(pipeline(name, tier=tier))
    assert names(client.list("Pipeline", namespace=namespace).items) == ["a", "b", "c"]
    assert names(client.list("Pipeline", namespace=namespace, label_selector="tier=gold").items) == ["a", "b"]
    assert names(client.list("Pipeline", namespace=namespace, label_selector="tier notin (gold)").items) == ["c"]
    assert names(client.list("Pipeline", namespace=namespace, field_selector="metadata.name=b").items) == ["b"]


def test_list_without_a_namespace_is_over_all(client: Client, namespace: str, pipeline: Make) -> None:
    other = f"{namespace}-2"
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    client.create(pipeline("a"))
    elsewhere = pipeline("b")
    elsewhere["metadata"]["namespace"] = other
    client.create(elsewhere)
    found = {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in client.list("Pipeline").items}
    assert {(namespace, "a"), (other, "b")} <= found


def test_listed_objects_are_whole(client: Client, namespace: str, pipeline: Make) -> None:
    created = client.create(pipeline("a"))
    assert client.list("Pipeline", namespace=namespace).items == [created]


def test_pages_are_of_one_instant(client: Client, namespace: str, pipeline: Make) -> None:
    for number in range(7):
        client.create(pipeline(f"p{number}"))
    first = client.list("Pipeline", namespace=namespace, limit=3)
    client.delete("Pipeline", "p6", namespace=namespace)
    client.create(pipeline("p9"))
    second = client.list("Pipeline", namespace=namespace, limit=3, continue_token=first.continue_token)
    third = client.list("Pipeline", namespace=namespace, limit=3, continue_token=second.continue_token)
    assert [names(page.items) for page in (first, second, third)] == [["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6"]]
    assert third.continue_token == ""
    assert first.resource_version == third.resource_version


def test_bad_selector_is_refused(client: Client, namespace: str) -> None:
    with pytest.raises(errors.BadRequestError):
        client.list("Pipeline", namespace=namespace, label_selector="a in (")


# --- watches ----------------------------------------------------------------------------------------------


def test_watch_tells_what_happened_after_a_version(client: Client, namespace: str, pipeline: Make) -> None:
    client.create(pipeline("before"))
    version = client.list("Pipeline", namespace=namespace).resource_version
    client.create(pipeline("a"))
    client.patch("Pipeline", "a", {"spec": {"description": "second"}}, namespace=namespace)
    watch = client.watch("Pipeline", namespace=namespace, resource_version=version)
    client.delete("Pipeline", "a", namespace=namespace)
    events = [following(watch) for _ in range(3)]
    watch.close()
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event.object["spec"]["description"] for event in events] == ["first", "second", "second"]
    versions = [int(event.object["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))


def test_watch_from_nowhere_starts_with_what_is_there(client: Client, namespace: str, pipeline: Make) -> None:
    client.create(pipeline("a"))
    client.create(pipeline("b"))
    watch = client.watch("Pipeline", namespace=namespace)
    present = [following(watch), following(watch)]
    client.create(pipeline("c"))
    later = following(watch)
    watch.close()
    assert {(event.type, event.object["metadata"]["name"]) for event in present} == {("ADDED", "a"), ("ADDED", "b")}
    assert (later.type, later.object["metadata"]["name"]) == ("ADDED", "c")


def test_watch_sees_objects_enter_and_leave_its_selection(client: Client, namespace: str, pipeline: Make) -> None:
    watch = client.watch("Pipeline", namespace=namespace, label_selector="tier=gold")
    client.create(pipeline("a", tier="tin"))
    client.patch("Pipeline", "a", {"metadata": {"labels": {"tier": "gold"}}}, namespace=namespace)
    client.patch("Pipeline", "a", {"metadata": {"labels": {"tier": "tin"}}}, namespace=namespace)
    events = [following(watch), following(watch)]
    watch.close()
    assert [event.type for event in events] == ["ADDED", "DELETED"]


def test_watch_of_one_namespace_is_silent_about_others(client: Client, namespace: str, pipeline: Make) -> None:
    other = f"{namespace}-2"
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    watch = client.watch("Pipeline", namespace=namespace)
    elsewhere = pipeline("elsewhere")
    elsewhere["metadata"]["namespace"] = other
    client.create(elsewhere)
    client.create(pipeline("here"))
    assert following(watch).object["metadata"]["name"] == "here"
    watch.close()


def test_watch_without_news_times_out(client: Client, namespace: str) -> None:
    watch = client.watch("Pipeline", namespace=namespace)
    assert watch.next(0.01) is None
    watch.close()


def test_watch_is_closed_from_another_thread(client: Client, namespace: str) -> None:
    watch = client.watch("Pipeline", namespace=namespace)
    ends: list[WatchEvent | None] = []
    waiting = threading.Event()

    def read() -> None:
        waiting.set()
        ends.append(watch.next())

    reader = threading.Thread(target=read)
    reader.start()
    assert waiting.wait(DEADLINE_SECONDS)
    watch.close()
    reader.join(DEADLINE_SECONDS)
    assert ends == [None]
    assert watch.next() is None


def test_watch_gives_many_events_in_order(client: Client, namespace: str, pipeline: Make) -> None:
    version = client.list("Pipeline", namespace=namespace).resource_version
    created = [f"p{number:03}" for number in range(150)]
    for name in created:
        client.create(pipeline(name))
    watch = client.watch("Pipeline", namespace=namespace, resource_version=version)
    seen = [following(watch).object["metadata"]["name"] for _ in created]
    watch.close()
    assert seen == created
