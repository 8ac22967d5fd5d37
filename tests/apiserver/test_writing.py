"""Create, update and patch: what is stored, what the server decides, what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import documents
from michelangelo.apiserver.options import DeleteOptions, WriteOptions
from michelangelo.apiserver.patching import Patch
from michelangelo.meta import labels

if TYPE_CHECKING:
    from tests.apiserver.conftest import MovableClock, Platform


def test_create_sets_what_the_server_decides(platform: Platform) -> None:
    made = platform.create("Pipeline", "flow", uid="mine", status={"state": "Ready"})
    metadata = made["metadata"]
    assert metadata["uid"] not in ("", "mine")
    assert metadata["creationTimestamp"] == "2026-01-31T12:00:00Z"
    assert metadata["generation"] == 1
    assert metadata["namespace"] == "team"
    assert "status" not in made
    assert platform.get("Pipeline", "flow") == made


def test_create_twice_is_refused(platform: Platform) -> None:
    platform.create("Pipeline", "flow")
    with pytest.raises(errors.AlreadyExistsError, match=r'pipelines.michelangelo.api "flow" already exists') as refused:
        platform.create("Pipeline", "flow")
    assert refused.value.details == {"name": "flow", "group": "michelangelo.api", "kind": "pipelines"}


def test_create_makes_up_a_name(platform: Platform) -> None:
    names = {platform.create("Pipeline", "", generateName="flow-")["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("flow-") and len(name) == 10 for name in names)


def test_create_without_any_name_is_refused(platform: Platform) -> None:
    with pytest.raises(errors.InvalidError, match="name or generateName is required"):
        platform.create("Pipeline", "")


def test_create_with_a_resource_version_is_refused(platform: Platform) -> None:
    with pytest.raises(errors.BadRequestError, match="resourceVersion should not be set"):
        platform.create("Pipeline", "flow", resourceVersion="1")


def test_create_of_a_kind_without_status_subresource_keeps_its_status(platform: Platform) -> None:
    lease = platform.create("Lease", "lock", spec={"holderIdentity": "me"})
    assert "generation" not in lease["metadata"]
    event = platform.create("Event", "happened", reason="Started", message="it started")
    assert event["involvedObject"]["name"] == "flow"


def test_create_tells_all_wrong_fields_at_once(platform: Platform) -> None:
    with pytest.raises(errors.InvalidError) as refused:
        platform.create(
            "Pipeline", "Not A Name", spec={"type": "Nothing", "manifest": {"filePath": 7}, "surprise": True}
        )
    paths = {error.path for error in refused.value.errors}
    assert {"metadata.name", "spec.type", "spec.manifest.filePath", "spec.surprise"} <= paths
    assert platform.names("Pipeline") == []


def test_unknown_fields_are_refused_dropped_or_dropped_with_a_warning(platform: Platform) -> None:
    spec = {"manifest": {"filePath": "flow.py"}, "surprise": True}
    with pytest.raises(errors.BadRequestError, match=r'strict decoding error: unknown field "spec.surprise"'):
        platform.create("Pipeline", "strict", spec=spec)
    warned = WriteOptions(field_validation="Warn")
    assert "surprise" not in platform.create("Pipeline", "warned", spec=spec, options=warned)["spec"]
    assert warned.warnings == ['unknown field "spec.surprise"']
    ignored = WriteOptions(field_validation="Ignore")
    assert "surprise" not in platform.create("Pipeline", "ignored", spec=spec, options=ignored)["spec"]
    assert ignored.warnings == []


def test_create_in_another_namespace_than_the_requests_is_refused(platform: Platform) -> None:
    obj = {"metadata": {"name": "flow", "namespace": "other"}, "spec": {"manifest": {"filePath": "flow.py"}}}
    with pytest.raises(errors.BadRequestError, match="does not match the namespace"):
        next(platform.api.create(registry.get("Pipeline"), "team", obj))


def test_object_over_the_limit_is_refused(platform: Platform) -> None:
    with pytest.raises(errors.RequestTooLargeError, match="blob"):
        platform.create("PipelineRun", "big", spec={"pipeline": {"name": "flow"}, "description": "x" * 1_600_000})
    assert platform.names("PipelineRun") == []


def test_dry_run_checks_everything_and_keeps_nothing(platform: Platform) -> None:
    dry = WriteOptions(dry_run=True)
    before = platform.api.revision()
    made = platform.create("Pipeline", "flow", options=dry)
    assert made["metadata"]["uid"]
    with pytest.raises(errors.InvalidError):
        platform.create("Pipeline", "flow", spec={}, options=dry)
    with pytest.raises(errors.NotFoundError):
        platform.delete("Pipeline", "flow", options=dry)
    assert platform.api.revision() == before
    platform.create("Pipeline", "flow")
    with pytest.raises(errors.AlreadyExistsError):
        platform.create("Pipeline", "flow", options=dry)
    patched = platform.patch("Pipeline", "flow", Patch("merge", {"spec": {"description": "new"}}), options=dry)
    assert patched["spec"]["description"] == "new"
    platform.delete("Pipeline", "flow", options=dry)
    assert "description" not in platform.get("Pipeline", "flow")["spec"]


def test_update_bumps_the_generation_only_with_the_spec(platform: Platform) -> None:
    made = platform.create("Pipeline", "flow")
    labelled = platform.update({**made, "metadata": {**made["metadata"], "labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 1
    changed = platform.update({**labelled, "spec": {**labelled["spec"], "description": "new"}})
    assert changed["metadata"]["generation"] == 2
    ready = platform.update({**changed, "status": {"state": "Ready"}}, subresource="status")
    assert ready["metadata"]["generation"] == 2
    assert ready["status"] == {"state": "Ready"}


def test_update_of_the_main_resource_leaves_the_status(platform: Platform) -> None:
    made = platform.create("Pipeline", "flow")
    platform.update({**made, "status": {"state": "Ready"}}, subresource="status")
    current = platform.get("Pipeline", "flow")
    updated = platform.update(
        {**current, "spec": {**current["spec"], "description": "x"}, "status": {"state": "Error"}}
    )
    assert updated["status"] == {"state": "Ready"}


def test_update_of_the_status_leaves_everything_else(platform: Platform) -> None:
    made = platform.create("Pipeline", "flow", labels={"a": "b"})
    wanted = {**made, "metadata": {**made["metadata"], "labels": {"a": "c"}}, "spec": {}, "status": {"state": "Ready"}}
    updated = platform.update(wanted, subresource="status")
    assert updated["metadata"]["labels"] == {"a": "b"}
    assert updated["spec"] == made["spec"]
    assert updated["status"] == {"state": "Ready"}


def test_status_of_a_kind_without_that_subresource_is_not_found(platform: Platform) -> None:
    made = platform.create("Lease", "lock")
    with pytest.raises(errors.NotFoundError, match="no status subresource"):
        platform.update(made, subresource="status")


def test_update_without_a_change_writes_nothing(platform: Platform) -> None:
    made = platform.create("Pipeline", "flow", annotations={"note": "x"})
    before = platform.api.revision()
    assert platform.update(made) == made
    # A manifest from a file has none of the server's fields, and its timestamps are the server's too.
    bare = {**made, "metadata": {"name": "flow", "annotations": {"note": "x"}}}
    assert platform.update(bare) == made
    assert platform.api.revision() == before


def test_update_from_an_older_version_conflicts(platform: Platform) -> None:
    old = platform.create("Pipeline", "flow")
    platform.patch("Pipeline", "flow", Patch("merge", {"spec": {"description": "new"}}))
    with pytest.raises(errors.ConflictError, match="the object has been modified") as refused:
        platform.update({**old, "spec": {**old["spec"], "description": "mine"}})
    assert refused.value.details["name"] == "flow"
    without = {**old, "metadata": {"name": "flow"}, "spec": {**old["spec"], "description": "mine"}}
    assert platform.update(without)["spec"]["description"] == "mine"


def test_update_of_an_earlier_object_of_the_same_name_conflicts(platform: Platform) -> None:
    old = platform.create("Pipeline", "flow")
    platform.delete("Pipeline", "flow")
    platform.create("Pipeline", "flow")
    wanted = {**old, "metadata": {**old["metadata"], "resourceVersion": ""}}
    with pytest.raises(errors.ConflictError, match="UID"):
        platform.update(wanted)


def test_update_of_what_is_missing_is_not_found(platform: Platform) -> None:
    with pytest.raises(errors.NotFoundError, match=r'pipelines.michelangelo.api "flow" not found'):
        platform.update({"kind": "Pipeline", "metadata": {"name": "flow"}, "spec": {}})


def test_racing_patches_all_take_effect(platform: Platform) -> None:
    platform.create("Pipeline", "flow")

    def label(number: int) -> None:
        platform.patch("Pipeline", "flow", Patch("merge", {"metadata": {"labels": {f"l{number}": "x"}}}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(label, range(16)))
    assert len(platform.get("Pipeline", "flow")["metadata"]["labels"]) == 16


def test_racing_updates_of_one_version_let_one_win(platform: Platform) -> None:
    made = platform.create("Pipeline", "flow")

    def write(number: int) -> bool:
        try:
            platform.update({**made, "spec": {**made["spec"], "description": str(number)}})
        except errors.ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1


@pytest.mark.parametrize(
    ("patch", "refusal"),
    [
        pytest.param(Patch("merge", []), errors.BadRequestError, id="merge that is a list"),
        pytest.param(Patch("json", {}), errors.BadRequestError, id="json patch that is an object"),
        pytest.param(Patch("json", [{"op": "fly", "path": "/spec"}]), errors.BadRequestError, id="unknown operation"),
        pytest.param(Patch("json", [{"op": "remove", "path": "/spec/no"}]), errors.InvalidError, id="path not there"),
        pytest.param(
            Patch("json", [{"op": "test", "path": "/kind", "value": "x"}]), errors.InvalidError, id="test fails"
        ),
        pytest.param(
            Patch("json", [{"op": "replace", "path": "", "value": 1}]), errors.BadRequestError, id="no object"
        ),
        pytest.param(Patch("merge", {"metadata": None}), errors.BadRequestError, id="no metadata"),
        pytest.param(Patch("merge", {"metadata": {"name": "b"}}), errors.BadRequestError, id="another name"),
        pytest.param(Patch("merge", {"metadata": {"namespace": "b"}}), errors.BadRequestError, id="another namespace"),
        pytest.param(Patch("merge", {"kind": "Project"}), errors.InvalidError, id="another kind"),
        pytest.param(Patch("merge", {"spec": None}), errors.InvalidError, id="no spec"),
        pytest.param(Patch("merge", {"spec": {"typ": "Train"}}), errors.BadRequestError, id="unknown field"),
        pytest.param(Patch("merge", {"metadata": {"resourceVersion": "1"}}), errors.ConflictError, id="old version"),
        pytest.param(Patch("strategic", {"spec": {"$patch": "fly"}}), errors.BadRequestError, id="unknown directive"),
    ],
)
def test_bad_patch_is_refused_and_changes_nothing(
    platform: Platform, patch: Patch, refusal: type[errors.ApiError]
) -> None:
    made = platform.create("Pipeline", "flow")
    with pytest.raises(refusal):
        platform.patch("Pipeline", "flow", patch)
    assert platform.get("Pipeline", "flow") == made


def test_json_patch_and_merge_patch_change_the_object(platform: Platform) -> None:
    platform.create("Pipeline", "flow", labels={"a": "b"})
    merged = platform.patch("Pipeline", "flow", Patch("merge", {"metadata": {"labels": {"a": None, "c": "d"}}}))
    assert merged["metadata"]["labels"] == {"c": "d"}
    operations = [
        {"op": "add", "path": "/spec/description", "value": "x"},
        {"op": "test", "path": "/kind", "value": "Pipeline"},
    ]
    assert platform.patch("Pipeline", "flow", Patch("json", operations))["spec"]["description"] == "x"


def test_patch_of_the_status_subresource(platform: Platform) -> None:
    platform.create("Pipeline", "flow")
    patch = Patch("merge", {"status": {"state": "Ready"}, "metadata": {"labels": {"x": "y"}}})
    patched = platform.patch("Pipeline", "flow", patch, subresource="status")
    assert patched["status"] == {"state": "Ready"}
    assert "labels" not in patched["metadata"]


def test_strategic_patch_merges_by_key(platform: Platform) -> None:
    platform.create("Namespace", "space", labels={"a": "b"}, finalizers=["x.example/one"])
    condition = {"type": "Deleted", "status": "False", "reason": "No"}
    platform.patch(
        "Namespace", "space", Patch("strategic", {"status": {"conditions": [condition]}}), subresource="status"
    )
    patch = {
        "metadata": {
            "labels": {"a": None, "c": "d"},
            "finalizers": ["x.example/two"],
            "$deleteFromPrimitiveList/finalizers": ["x.example/one"],
            "$setElementOrder/finalizers": ["x.example/two"],
        }
    }
    patched = platform.patch("Namespace", "space", Patch("strategic", patch))
    assert patched["metadata"]["labels"] == {"c": "d", "kubernetes.io/metadata.name": "space"}
    assert patched["metadata"]["finalizers"] == ["x.example/two"]
    status = {"status": {"conditions": [{"type": "Deleted", "status": "True"}]}}
    changed = platform.patch("Namespace", "space", Patch("strategic", status), subresource="status")
    assert changed["status"]["conditions"] == [{**condition, "status": "True"}]


def test_run_spec_is_immutable_but_for_its_controls(platform: Platform) -> None:
    platform.create("PipelineRun", "run")
    with pytest.raises(errors.InvalidError, match="immutable") as refused:
        platform.patch("PipelineRun", "run", Patch("merge", {"spec": {"pipeline": {"name": "other"}}}))
    assert [error.path for error in refused.value.errors] == ["spec.pipeline"]
    killed = platform.patch("PipelineRun", "run", Patch("merge", {"spec": {"kill": True}}))
    assert killed["metadata"]["generation"] == 2
    with pytest.raises(errors.InvalidError, match="false to true"):
        platform.patch("PipelineRun", "run", Patch("merge", {"spec": {"kill": False}}))


def test_kinds_that_people_edit_say_when_they_were_written(platform: Platform, clock: MovableClock) -> None:
    made = platform.create("Pipeline", "flow")["metadata"]["annotations"]
    assert made[labels.UPDATE_TIMESTAMP] == made[labels.SPEC_UPDATE_TIMESTAMP] == "1769860800000000"
    clock.advance(1.5)
    platform.patch("Pipeline", "flow", Patch("merge", {"status": {"state": "Ready"}}), subresource="status")
    later = platform.get("Pipeline", "flow")["metadata"]["annotations"]
    assert later[labels.UPDATE_TIMESTAMP] == "1769860801500000"
    assert later[labels.SPEC_UPDATE_TIMESTAMP] == "1769860800000000"


def test_stored_bytes_do_not_hold_the_resource_version(platform: Platform) -> None:
    platform.create("Pipeline", "flow")
    platform.patch("Pipeline", "flow", Patch("merge", {"spec": {"description": "x"}}))
    record = platform.api._store.get(documents.key(registry.get("Pipeline"), "team", "flow"))
    assert record is not None
    stored: dict[str, Any] = json.loads(record.value)
    assert "resourceVersion" not in stored["metadata"]
    assert documents.decode(record)["metadata"]["resourceVersion"] == str(record.revision)


def test_guard_sees_the_object_before_and_after(platform: Platform) -> None:
    platform.create("Pipeline", "flow", labels={"a": "b"})
    seen: list[object] = []
    options = WriteOptions(guard=lambda obj: seen.append(obj["metadata"]["labels"]["a"]))
    platform.patch("Pipeline", "flow", Patch("merge", {"metadata": {"labels": {"a": "c"}}}), options=options)
    platform.delete("Pipeline", "flow", options=options, how=DeleteOptions())
    assert seen == ["b", "c", "c"]
