"""The resource API on the wire: requests that go well. Refusals are in test_http_refusals.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.apiserver.conftest import RawHttp, Served

    Documents = Callable[..., dict[str, Any]]

GROUP = "/apis/michelangelo.api/v2"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture
def flow(http_client: RawHttp, pipelines: str, make_document: Documents) -> str:
    """The URL of a pipeline `flow`."""
    reply = http_client.post(pipelines, make_document("Pipeline", "flow", labels={"color": "red"}))
    assert reply.code == 201, reply.body
    return f"{pipelines}/flow"


def test_object_goes_through_its_life(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    made = http_client.post(pipelines, make_document("Pipeline", "flow"))
    assert made.code == 201
    assert made.headers["content-type"] == "application/json"
    assert http_client.get(f"{pipelines}/flow").json == made.json
    wanted = {**made.json, "metadata": {"name": "flow", "labels": {"a": "b"}}}
    replaced = http_client.send("PUT", f"{pipelines}/flow", wanted)
    assert (replaced.code, replaced.json["metadata"]["labels"]) == (200, {"a": "b"})
    status = http_client.send("PUT", f"{pipelines}/flow/status", {**replaced.json, "status": {"state": "Ready"}})
    assert (status.code, status.json["status"]) == (200, {"state": "Ready"})
    assert http_client.get(f"{pipelines}/flow/status").json == status.json
    gone = http_client.send("DELETE", f"{pipelines}/flow")
    assert (gone.code, gone.json["status"]) == (200, "Success")
    assert http_client.get(f"{pipelines}/flow").code == 404


def test_yaml_goes_in_and_comes_out(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    body = yaml.safe_dump(make_document("Pipeline", "flow", annotations={"day": "2026-01-31"})).encode()
    made = http_client.send("POST", pipelines, body, content_type="application/yaml", accept="application/yaml")
    assert made.code == 201
    assert made.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(made.body)["spec"]["manifest"]["filePath"] == "flow.py"


def test_yaml_dates_are_text(http_client: RawHttp, pipelines: str) -> None:
    body = b"metadata: {name: flow, annotations: {day: 2026-01-31}}\nspec: {manifest: {filePath: flow.py}}\n"
    made = http_client.send("POST", pipelines, body, content_type="application/yaml")
    assert made.json["metadata"]["annotations"]["day"] == "2026-01-31"


@pytest.mark.parametrize(
    ("content_type", "patch"),
    [
        ("application/merge-patch+json", {"spec": {"description": "new"}}),
        ("application/json-patch+json", [{"op": "add", "path": "/spec/description", "value": "new"}]),
    ],
)
def test_patches(http_client: RawHttp, flow: str, content_type: str, patch: Any) -> None:
    reply = http_client.send("PATCH", flow, patch, content_type=content_type)
    assert (reply.code, reply.json["spec"]["description"]) == (200, "new")


def test_strategic_patch_is_for_core_kinds(http_client: RawHttp, flow: str, space: str) -> None:
    patch = {"metadata": {"labels": {"a": "b"}}}
    content_type = "application/strategic-merge-patch+json"
    assert http_client.send("PATCH", f"/api/v1/namespaces/{space}", patch, content_type=content_type).code == 200
    assert http_client.send("PATCH", flow, patch, content_type=content_type).code == 415


def test_patch_by_upstreams_field_names_changes_the_field(http_client: RawHttp, flow: str) -> None:
    patch = {"spec": {"manifest": {"file_path": "other.py"}, "owner": {"name": "me"}}}
    reply = http_client.send("PATCH", flow, patch, content_type="application/merge-patch+json")
    assert reply.json["spec"]["manifest"]["filePath"] == "other.py"


def test_dry_run_keeps_nothing(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    assert http_client.post(f"{pipelines}?dryRun=All", make_document("Pipeline", "flow")).code == 201
    assert http_client.get(f"{pipelines}/flow").code == 404


def test_unknown_fields_warn(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    obj = make_document("Pipeline", "flow", spec={"manifest": {"filePath": "a.py"}, "surprise": 1})
    strict = http_client.post(f"{pipelines}?fieldValidation=Strict", obj)
    assert (strict.code, strict.json["reason"]) == (400, "BadRequest")
    warned = http_client.post(pipelines, obj)
    assert warned.code == 201
    assert warned.headers["warning"] == '299 - "unknown field \\"spec.surprise\\""'
    assert "surprise" not in warned.json["spec"]


def test_list_pages(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    for number in range(5):
        http_client.post(pipelines, make_document("Pipeline", f"p{number}", labels={"n": str(number % 2)}))
    first = http_client.get(f"{pipelines}?limit=2").json
    assert (first["kind"], first["apiVersion"]) == ("PipelineList", "michelangelo.api/v2")
    assert first["metadata"]["remainingItemCount"] == 3
    second = http_client.get(f"{pipelines}?limit=2&continue={first['metadata']['continue']}").json
    assert [one["metadata"]["name"] for one in second["items"]] == ["p2", "p3"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    selected = http_client.get(f"{pipelines}?labelSelector=n%3D1&fieldSelector=metadata.name!%3Dp1").json
    assert [one["metadata"]["name"] for one in selected["items"]] == ["p3"]
    assert "continue" not in selected["metadata"]


def test_list_of_all_namespaces(http_client: RawHttp, flow: str, space: str) -> None:
    everywhere = http_client.get(f"{GROUP}/pipelines?fieldSelector=metadata.namespace%3D{space}").json
    assert [one["metadata"]["name"] for one in everywhere["items"]] == ["flow"]


def test_table_has_the_kinds_columns(http_client: RawHttp, flow: str, pipelines: str) -> None:
    table = http_client.get(pipelines, accept=TABLE).json
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"]][:2] == ["Name", "Type"]
    (row,) = table["rows"]
    assert row["cells"][0] == "flow"
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["metadata"]["name"] == "flow"
    whole = http_client.get(f"{flow}?includeObject=Object", accept=TABLE.replace("v=v1", "v=v1beta1")).json
    assert whole["apiVersion"] == "meta.k8s.io/v1beta1"
    assert whole["rows"][0]["object"]["spec"]


def test_partial_metadata(http_client: RawHttp, flow: str, pipelines: str) -> None:
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    one = http_client.get(flow, accept=accept).json
    assert (one["kind"], "spec" in one) == ("PartialObjectMetadata", False)
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    many = http_client.get(pipelines, accept=accept).json
    assert (many["kind"], many["items"][0]["kind"]) == ("PartialObjectMetadataList", "PartialObjectMetadata")


def test_watch_streams_events(http_client: RawHttp, flow: str, pipelines: str, make_document: Documents) -> None:
    events = http_client.events(f"{pipelines}?watch=true")
    assert next(events)["type"] == "ADDED"
    http_client.send("PATCH", flow, {"spec": {"description": "x"}}, content_type="application/merge-patch+json")
    changed = next(events)
    assert (changed["type"], changed["object"]["spec"]["description"]) == ("MODIFIED", "x")
    http_client.send("DELETE", flow)
    assert next(events)["type"] == "DELETED"
    events.close()


def test_watch_after_a_revision_of_a_list(
    http_client: RawHttp, flow: str, pipelines: str, make_document: Documents
) -> None:
    version = http_client.get(pipelines).json["metadata"]["resourceVersion"]
    events = http_client.events(f"{pipelines}?watch=1&resourceVersion={version}")
    http_client.post(pipelines, make_document("Pipeline", "second"))
    assert next(events)["object"]["metadata"]["name"] == "second"
    events.close()


def test_watch_with_initial_events_marks_their_end(http_client: RawHttp, flow: str, pipelines: str) -> None:
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    events = http_client.events(f"{pipelines}?{query}")
    assert next(events)["type"] == "ADDED"
    bookmark = next(events)
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert bookmark["object"]["metadata"]["resourceVersion"]
    events.close()


def test_watch_ends_when_its_time_is_up(http_client: RawHttp, pipelines: str) -> None:
    assert list(http_client.events(f"{pipelines}?watch=true&timeoutSeconds=1")) == []


def test_watch_of_tables_sends_the_columns_once(
    http_client: RawHttp, flow: str, pipelines: str, make_document: Documents
) -> None:
    events = http_client.events(f"{pipelines}?watch=true", accept=TABLE)
    assert next(events)["object"]["columnDefinitions"]
    http_client.post(pipelines, make_document("Pipeline", "second"))
    second = next(events)["object"]
    assert second["rows"][0]["cells"][0] == "second"
    assert not second["columnDefinitions"]
    events.close()


def test_watch_of_a_compacted_revision_says_so_in_the_stream(served: Served, pipelines: str, flow: str) -> None:
    for number in range(3):
        patch = {"spec": {"description": str(number)}}
        served.http.send("PATCH", flow, patch, content_type="application/merge-patch+json")
    served.api._store.compact(served.api.revision())
    (event,) = served.http.events(f"{pipelines}?watch=true&resourceVersion=1")
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_delete_options_come_in_the_body_or_the_query(http_client: RawHttp, flow: str) -> None:
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "another"}}
    assert http_client.send("DELETE", flow, body).code == 409
    assert http_client.send("DELETE", f"{flow}?dryRun=All").code == 200
    marked = http_client.send("DELETE", flow, {"propagationPolicy": "Foreground"}).json
    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert http_client.send("DELETE", f"{flow}?propagationPolicy=Background").json["status"] == "Success"


def test_delete_collection(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    for name in ("a", "b"):
        http_client.post(pipelines, make_document("Pipeline", name, labels={"name": name}))
    reply = http_client.send("DELETE", f"{pipelines}?labelSelector=name%3Da")
    assert (reply.code, reply.json["kind"]) == (200, "PipelineList")
    assert [one["metadata"]["name"] for one in http_client.get(pipelines).json["items"]] == ["b"]


def test_namespace_is_finalized_through_its_subresource(http_client: RawHttp) -> None:
    made = http_client.post("/api/v1/namespaces", {"metadata": {"name": "to-finalize"}}).json
    assert http_client.send("DELETE", "/api/v1/namespaces/to-finalize").json["status"]["phase"] == "Terminating"
    made["metadata"].pop("resourceVersion")
    reply = http_client.send("PUT", "/api/v1/namespaces/to-finalize/finalize", {**made, "spec": {"finalizers": []}})
    assert reply.code == 200
    assert http_client.get("/api/v1/namespaces/to-finalize").code == 404


def test_legacy_discovery(http_client: RawHttp) -> None:
    assert http_client.get("/api").json["versions"] == ["v1"]
    groups = http_client.get("/apis").json
    assert {one["name"] for one in groups["groups"]} == {"michelangelo.api", "coordination.k8s.io"}
    assert http_client.get("/apis/michelangelo.api").json["preferredVersion"]["version"] == "v2"
    resources = {one["name"]: one for one in http_client.get("/apis/michelangelo.api/v2").json["resources"]}
    assert resources["pipelines"]["kind"] == "Pipeline"
    assert "watch" in resources["pipelines"]["verbs"]
    assert "pipelines/status" in resources
    assert "taskruns/status" not in resources
    core = {one["name"] for one in http_client.get("/api/v1").json["resources"]}
    assert {"namespaces", "namespaces/finalize", "events"} <= core


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
def test_aggregated_discovery(http_client: RawHttp, version: str) -> None:
    form = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    reply = http_client.get("/apis", accept=f"{form},application/json")
    assert reply.headers["content-type"] == form
    assert reply.json["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    group = next(one for one in reply.json["items"] if one["metadata"]["name"] == "michelangelo.api")
    assert {"pipelines", "pipelineruns"} <= {one["resource"] for one in group["versions"][0]["resources"]}
    core = http_client.get("/api", accept=form).json["items"]
    assert [one["resource"] for one in core[0]["versions"][0]["resources"]] == ["namespaces", "secrets", "events"]


def test_openapi_is_indexed_by_digest(http_client: RawHttp) -> None:
    index = http_client.get("/openapi/v3").json["paths"]
    url = index["apis/michelangelo.api/v2"]["serverRelativeURL"]
    reply = http_client.get(url)
    assert "immutable" in reply.headers["cache-control"]
    assert "api.michelangelo.v2.Pipeline" in reply.json["components"]["schemas"]
    again = http_client.get(url, if_none_match=reply.headers["etag"])
    assert (again.code, again.body) == (304, b"")
    assert http_client.get("/openapi/v2").json["swagger"] == "2.0"


def test_what_is_open_needs_no_token(served: Served) -> None:
    anybody = type(served.http)(served.http.url)
    assert [anybody.get(path).code for path in ("/readyz", "/livez", "/healthz")] == [200, 200, 200]
    version = anybody.get("/version").json
    assert version["gitVersion"].startswith(f"v{version['major']}.{version['minor']}.0+michelangelo")


def test_metrics_count_requests_and_watches(http_client: RawHttp, flow: str, pipelines: str) -> None:
    events = http_client.events(f"{pipelines}?watch=true")
    next(events)
    text = http_client.get("/metrics").body.decode()
    assert 'michelangelo_apiserver_watches{resource="pipelines.michelangelo.api"} 1.0' in text
    counted = 'michelangelo_apiserver_requests_total{code="201",resource="pipelines.michelangelo.api",verb="create"}'
    assert counted in text
    assert "michelangelo_store_revision" in text
    assert "michelangelo_apiserver_request_duration_seconds_bucket" in text
    events.close()


def test_head_is_answered_like_get_without_a_body(http_client: RawHttp, flow: str) -> None:
    reply = http_client.send("HEAD", flow)
    assert (reply.code, reply.body) == (200, b"")


def test_large_list_is_whole(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    spec = {"manifest": {"filePath": "a.py"}, "description": "x" * 2000}
    for number in range(120):
        assert http_client.post(pipelines, make_document("Pipeline", f"p{number:03}", spec=spec)).code == 201
    assert len(json.loads(http_client.get(pipelines).body)["items"]) == 120
