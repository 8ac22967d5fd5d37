"""Delete and deletecollection: finalizers, propagation, preconditions, namespaces on their way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import verb
from michelangelo.apiserver.options import DeleteOptions, ListOptions
from michelangelo.apiserver.patching import Patch

if TYPE_CHECKING:
    from tests.apiserver.conftest import MovableClock, Platform


def test_delete_answers_with_a_status(platform: Platform) -> None:
    made = platform.create("Pipeline", "flow")
    answer = platform.delete("Pipeline", "flow")
    assert answer["status"] == "Success"
    assert answer["details"] == {
        "name": "flow",
        "group": "michelangelo.api",
        "kind": "pipelines",
        "uid": made["metadata"]["uid"],
    }
    assert not platform.exists("Pipeline", "flow")


def test_delete_of_what_is_missing_is_not_found(platform: Platform) -> None:
    with pytest.raises(errors.NotFoundError, match=r'pipelines.michelangelo.api "flow" not found'):
        platform.delete("Pipeline", "flow")


def test_finalizers_hold_an_object_until_they_are_gone(platform: Platform, clock: MovableClock) -> None:
    platform.create("Pipeline", "flow", finalizers=["x.example/clean"])
    marked = platform.delete("Pipeline", "flow")
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-31T12:00:00Z"
    assert marked["metadata"]["generation"] == 2
    clock.advance(60)
    assert platform.delete("Pipeline", "flow") == marked
    with pytest.raises(errors.InvalidError, match="no new finalizers"):
        platform.patch(
            "Pipeline", "flow", Patch("merge", {"metadata": {"finalizers": ["x.example/clean", "x.example/b"]}})
        )
    platform.patch("Pipeline", "flow", Patch("merge", {"metadata": {"finalizers": None}}))
    assert not platform.exists("Pipeline", "flow")


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
def test_propagation_is_a_finalizer(platform: Platform, policy: str, finalizer: str) -> None:
    platform.create("Pipeline", "flow")
    how = DeleteOptions("Foreground" if policy == "Foreground" else "Orphan")
    marked = platform.delete("Pipeline", "flow", how=how)
    assert marked["metadata"]["finalizers"] == [finalizer]
    # Who deletes in the background afterwards does not wait for dependents any more.
    assert platform.delete("Pipeline", "flow", how=DeleteOptions("Background"))["status"] == "Success"


@pytest.mark.parametrize(
    "how", [DeleteOptions(uid="another"), DeleteOptions(resource_version="1")], ids=["uid", "resourceVersion"]
)
def test_delete_with_a_precondition_that_does_not_hold_conflicts(platform: Platform, how: DeleteOptions) -> None:
    platform.create("Pipeline", "flow")
    with pytest.raises(errors.ConflictError, match="Precondition failed"):
        platform.delete("Pipeline", "flow", how=how)
    assert platform.exists("Pipeline", "flow")


def test_delete_with_preconditions_that_hold(platform: Platform) -> None:
    metadata = platform.create("Pipeline", "flow")["metadata"]
    platform.delete("Pipeline", "flow", how=DeleteOptions(None, metadata["uid"], metadata["resourceVersion"]))
    assert not platform.exists("Pipeline", "flow")


def test_delete_collection_deletes_what_is_selected(platform: Platform) -> None:
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        platform.create("Pipeline", name, labels={"color": color})
    selectors = ListOptions(label_selector="color=red")
    found = verb.run(platform.api.delete_collection(registry.get("Pipeline"), "team", selectors))
    assert [obj["metadata"]["name"] for obj in found.items] == ["a", "c"]
    assert platform.names("Pipeline") == ["b"]


def test_namespace_terminates_until_it_is_finalized(platform: Platform) -> None:
    platform.create("Namespace", "space")
    marked = platform.delete("Namespace", "space")
    assert marked["status"]["phase"] == "Terminating"
    assert marked["spec"]["finalizers"] == ["kubernetes"]
    platform.namespace = "space"
    with pytest.raises(errors.ForbiddenError, match="it is being terminated") as refused:
        platform.create("Pipeline", "flow")
    assert refused.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    # The ordinary update does not touch what holds it.
    platform.update({**marked, "spec": {}})
    assert platform.exists("Namespace", "space")
    marked["metadata"].pop("resourceVersion")
    platform.update({**marked, "spec": {}}, subresource="finalize")
    assert not platform.exists("Namespace", "space")


def test_namespace_that_is_finalized_before_it_is_deleted_goes_at_once(platform: Platform) -> None:
    made = platform.create("Namespace", "space")
    platform.update({**made, "spec": {"finalizers": []}}, subresource="finalize")
    assert platform.delete("Namespace", "space")["status"] == "Success"
