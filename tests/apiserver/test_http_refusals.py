"""Bad input on the wire: each gets a Status that says what is wrong, and nothing is stored."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from michelangelo.apiserver import auth

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.apiserver.conftest import RawHttp, Reply, Served

    Documents = Callable[..., dict[str, Any]]

GROUP = "/apis/michelangelo.api/v2"
NO_LABELS = {"metadata": {"name": "x", "labels": 7}, "spec": {"manifest": {"filePath": "a"}}}
LAUGHS = b"a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
)


def refused(reply: Reply, code: int, reason: str) -> str:
    """The message of the Status, which the reply must be."""
    assert reply.code == code, reply.body[:500]
    status = reply.json
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert (status["code"], status["reason"]) == (code, reason)
    message: str = status["message"]
    return message


@pytest.mark.parametrize(
    ("body", "code", "reason", "words"),
    [
        pytest.param(b"{", 400, "BadRequest", "not JSON", id="bad JSON"),
        pytest.param(b"", 400, "BadRequest", "not JSON", id="no body"),
        pytest.param(b"[]", 400, "BadRequest", "must be an object", id="a list"),
        pytest.param(b'{"a": NaN}', 400, "BadRequest", "not JSON", id="no number"),
        pytest.param(b"\xff\xfe", 400, "BadRequest", "not JSON", id="no text"),
        pytest.param(b"[" * 100_000, 400, "BadRequest", "not JSON", id="very deep JSON"),
        pytest.param(b'{"metadata": 7}', 400, "BadRequest", "metadata must be an object", id="metadata no object"),
        pytest.param(b'{"kind": "Model"}', 422, "Invalid", "must be Pipeline", id="another kind"),
        pytest.param(b'{"apiVersion": "v1"}', 400, "BadRequest", "expected API version", id="another version"),
        pytest.param(b'{"metadata": {"name": "x", "namespace": "y"}}', 400, "BadRequest", "namespace", id="namespace"),
        pytest.param(NO_LABELS, 422, "Invalid", "metadata.labels", id="labels no object"),
        pytest.param({"metadata": {"name": "x"}}, 422, "Invalid", "spec", id="no spec"),
        pytest.param({"metadata": {"name": "Not-a.label"}}, 422, "Invalid", "metadata.name", id="bad name"),
        pytest.param({"metadata": {"name": "x" * 64}}, 422, "Invalid", "metadata.name", id="long name"),
        pytest.param({"metadata": {"name": "a/b"}}, 422, "Invalid", "metadata.name", id="slash in name"),
        pytest.param(
            {"metadata": {"name": "x"}, "spec": {"type": "Fly"}}, 422, "Invalid", "Unsupported value", id="bad enum"
        ),
        pytest.param({"metadata": {"name": "x"}, "spec": []}, 422, "Invalid", "spec", id="wrong type"),
    ],
)
def test_bad_bodies(http_client: RawHttp, pipelines: str, body: Any, code: int, reason: str, words: str) -> None:
    assert words in refused(http_client.post(pipelines, body), code, reason)
    assert http_client.get(pipelines).json["items"] == []


def test_deep_document_is_refused(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    obj = make_document("Pipeline", "flow", spec={"manifest": {"filePath": "a", "content": deep}})
    assert "nested" in refused(http_client.post(pipelines, obj), 422, "Invalid")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        pytest.param(LAUGHS, 413, "aliases", id="billion laughs"),
        pytest.param(b"a: &a [*a]", 400, "nested deeper", id="cycle"),
        pytest.param(b"[" * 50_000, 400, "nested deeper", id="deep flow"),
        pytest.param(b"- " * 50_000, 400, "nested deeper", id="deep block"),
        pytest.param(b"[" + b"1," * 300_000 + b"]", 413, "values", id="many values"),
        pytest.param(b"a: [", 400, "not YAML", id="bad YAML"),
        pytest.param(b"a: 1\n---\nb: 2", 400, "not YAML", id="two documents"),
        pytest.param(b"a: !!python/object:os.system {}", 400, "not YAML", id="python object"),
        pytest.param(b"a: !!binary aGk=", 400, "bytes", id="binary"),
        pytest.param(b"a: \xff", 400, "not YAML", id="no text"),
    ],
)
def test_bad_yaml(http_client: RawHttp, pipelines: str, body: bytes, code: int, words: str) -> None:
    reply = http_client.send("POST", pipelines, body, content_type="application/yaml")
    assert words in refused(reply, code, {400: "BadRequest", 413: "RequestEntityTooLarge"}[code])


def test_body_over_the_limit(http_client: RawHttp, pipelines: str) -> None:
    message = refused(http_client.post(pipelines, b"x" * (3 * 1024 * 1024 + 1)), 413, "RequestEntityTooLarge")
    assert "limit is 3145728" in message


def test_body_over_the_limit_without_a_length(http_client: RawHttp, pipelines: str) -> None:
    parts = urlsplit(http_client.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as connection:
        head = f"POST {pipelines} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {http_client.token}\r\n"
        connection.sendall(head.encode() + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(50):
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        with http.client.HTTPResponse(connection) as response:
            response.begin()
            assert response.status == 413
            assert json.loads(response.read())["reason"] == "RequestEntityTooLarge"


def test_object_over_the_limit(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    spec = {"manifest": {"filePath": "a.py"}, "description": "x" * 1_600_000}
    reply = http_client.post(pipelines, make_document("Pipeline", "flow", spec=spec))
    assert "Put large data into a blob" in refused(reply, 413, "RequestEntityTooLarge")


def test_all_wrong_fields_come_at_once(http_client: RawHttp, pipelines: str) -> None:
    obj = {"metadata": {"name": "X", "labels": {"a b": "c"}}, "spec": {"type": "Fly", "manifest": {"filePath": 7}}}
    reply = http_client.post(pipelines, obj)
    refused(reply, 422, "Invalid")
    details = reply.json["details"]
    assert (details["kind"], details["group"]) == ("Pipeline", "michelangelo.api")
    fields = {cause["field"] for cause in details["causes"]}
    assert {"metadata.name", "metadata.labels", "spec.type", "spec.manifest.filePath"} <= fields


@pytest.mark.parametrize(
    ("method", "path", "code", "reason"),
    [
        ("GET", "/nothing", 404, "NotFound"),
        ("GET", "/apis/none.example", 404, "NotFound"),
        ("GET", "/apis/none.example/v1", 404, "NotFound"),
        ("GET", "/apis/michelangelo.api/v1/pipelines", 404, "NotFound"),
        ("GET", f"{GROUP}/models", 404, "NotFound"),
        ("GET", f"{GROUP}/namespaces/a/pipelines/b/c", 404, "NotFound"),
        ("GET", f"{GROUP}/namespaces/a/pipelines/b/status/c", 404, "NotFound"),
        ("GET", f"{GROUP}/namespaces//pipelines", 404, "NotFound"),
        ("GET", f"{GROUP}/pipelines/b", 404, "NotFound"),
        ("GET", f"{GROUP}/namespaces/a/taskruns/b/status", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/a/namespaces", 404, "NotFound"),
        ("GET", "/openapi/v3/apis/none", 404, "NotFound"),
        ("GET", f"{GROUP}/namespaces/a/pipelines/missing", 404, "NotFound"),
        ("DELETE", f"{GROUP}/namespaces/a/pipelines/missing", 404, "NotFound"),
        ("POST", f"{GROUP}/pipelines", 405, "MethodNotAllowed"),
        ("DELETE", f"{GROUP}/pipelines", 405, "MethodNotAllowed"),
        ("PUT", f"{GROUP}/namespaces/a/pipelines", 405, "MethodNotAllowed"),
        ("POST", f"{GROUP}/namespaces/a/pipelines/b", 405, "MethodNotAllowed"),
        ("OPTIONS", f"{GROUP}/namespaces/a/pipelines/b", 405, "MethodNotAllowed"),
        ("GET", "/api/v1/namespaces/a/finalize", 405, "MethodNotAllowed"),
    ],
)
def test_urls_that_lead_nowhere(http_client: RawHttp, method: str, path: str, code: int, reason: str) -> None:
    refused(http_client.send(method, path), code, reason)


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "limit=-1",
        "continue=x",
        "labelSelector=a%20b",
        "fieldSelector=spec.nothing%3D1",
        "resourceVersion=x",
        "watch=maybe",
        "watch=true&resourceVersion=x",
        "watch=true&timeoutSeconds=x",
        "watch=true&fieldSelector=x",
        "watch=true&allowWatchBookmarks=perhaps",
    ],
)
def test_bad_queries(http_client: RawHttp, pipelines: str, query: str) -> None:
    refused(http_client.get(f"{pipelines}?{query}"), 400, "BadRequest")


@pytest.mark.parametrize(
    "query",
    [
        "watch=true&sendInitialEvents=true",
        "watch=true&resourceVersionMatch=NotOlderThan",
    ],
)
def test_watch_options_that_do_not_go_together(http_client: RawHttp, pipelines: str, query: str) -> None:
    refused(http_client.get(f"{pipelines}?{query}"), 422, "Invalid")


@pytest.mark.parametrize("query", ["dryRun=Some", "fieldValidation=Lenient"])
def test_bad_write_options(http_client: RawHttp, pipelines: str, make_document: Documents, query: str) -> None:
    refused(http_client.post(f"{pipelines}?{query}", make_document("Pipeline", "flow")), 422, "Invalid")
    assert http_client.get(pipelines).json["items"] == []


def test_bad_delete_options(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    http_client.post(pipelines, make_document("Pipeline", "flow"))
    for body in (b"[]", b"{", {"preconditions": 7}):
        refused(http_client.send("DELETE", f"{pipelines}/flow", body), 400, "BadRequest")
    refused(http_client.send("DELETE", f"{pipelines}/flow?propagationPolicy=Sideways"), 422, "Invalid")
    assert http_client.get(f"{pipelines}/flow").code == 200


def test_table_of_an_unknown_include_is_refused(http_client: RawHttp, pipelines: str) -> None:
    reply = http_client.get(f"{pipelines}?includeObject=Half", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    refused(reply, 400, "BadRequest")


def test_wrong_content_types(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    body = make_document("Pipeline", "flow")
    message = refused(http_client.send("POST", pipelines, body, content_type="text/plain"), 415, "UnsupportedMediaType")
    assert "accepted media types include: application/json" in message
    http_client.post(pipelines, body)
    flow = f"{pipelines}/flow"
    refused(http_client.send("PATCH", flow, {}, content_type="application/json"), 415, "UnsupportedMediaType")
    apply = http_client.send("PATCH", flow, {}, content_type="application/apply-patch+yaml")
    assert "server-side apply" in refused(apply, 415, "UnsupportedMediaType")


def test_deep_patch_is_refused(http_client: RawHttp, pipelines: str, make_document: Documents) -> None:
    http_client.post(pipelines, make_document("Pipeline", "flow"))
    patch = b'{"a":' * 500 + b"1" + b"}" * 500
    reply = http_client.send("PATCH", f"{pipelines}/flow", patch, content_type="application/merge-patch+json")
    assert "nested" in refused(reply, 400, "BadRequest")


def test_conflict_and_immutability(http_client: RawHttp, space: str, make_document: Documents) -> None:
    runs = f"{GROUP}/namespaces/{space}/pipelineruns"
    made = http_client.post(runs, make_document("PipelineRun", "run")).json
    changed = {**made, "spec": {"pipeline": {"name": "other"}}}
    assert "immutable" in refused(http_client.send("PUT", f"{runs}/run", changed), 422, "Invalid")
    assert http_client.send("PUT", f"{runs}/run", {**made, "spec": {**made["spec"], "kill": True}}).code == 200
    refused(http_client.send("PUT", f"{runs}/run", made), 409, "Conflict")


def test_create_in_a_missing_namespace(http_client: RawHttp, make_document: Documents) -> None:
    reply = http_client.post(f"{GROUP}/namespaces/nowhere/pipelines", make_document("Pipeline", "flow"))
    assert refused(reply, 404, "NotFound") == 'namespaces "nowhere" not found'


# --- the gate ---------------------------------------------------------------------------------------------------


def test_no_token_and_wrong_tokens_are_unauthorized(served: Served) -> None:
    for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}):
        reply = type(served.http)(served.http.url, headers=header).get("/apis")
        refused(reply, 401, "Unauthorized")
        assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:80"},
        {"host": "10.1.2.3"},
        {"host": ""},
        {"host": "[bad"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
    ids=str,
)
def test_requests_for_other_hosts_and_from_other_sites_are_forbidden(
    http_client: RawHttp, headers: dict[str, str]
) -> None:
    refused(http_client.get("/version", **headers), 403, "Forbidden")


def test_requests_from_our_own_pages_are_answered(http_client: RawHttp) -> None:
    netloc = urlsplit(http_client.url).netloc
    assert http_client.get("/version", origin=f"http://{netloc}").code == 200
    assert http_client.get("/version", host="localhost:1").code == 200
    assert http_client.get("/version", host="[::1]:80").code == 200
    assert http_client.get("/version", sec_fetch_site="same-origin").code == 200


def test_run_token_reaches_its_run_only(served: Served, space: str, make_document: Documents) -> None:
    runs, tasks = (f"{GROUP}/namespaces/{space}/{plural}" for plural in ("pipelineruns", "taskruns"))
    run = served.http.post(runs, make_document("PipelineRun", "run-1")).json
    served.http.post(runs, make_document("PipelineRun", "run-2"))
    scope = auth.RunScope(space, "run-1", run["metadata"]["uid"])
    token = served.run_tokens.issue(scope, lifetime_seconds=600)
    own = type(served.http)(served.http.url, token)
    assert own.get(f"{runs}/run-1").code == 200
    merge = "application/merge-patch+json"
    patch = {"status": {"state": "Running"}}
    assert own.send("PATCH", f"{runs}/run-1/status", patch, content_type=merge).code == 200
    refused(own.get(f"{runs}/run-2"), 403, "Forbidden")
    refused(own.send("PATCH", f"{runs}/run-1", {"spec": {"kill": True}}, content_type=merge), 403, "Forbidden")
    refused(own.get(tasks), 403, "Forbidden")
    assert own.get(f"{tasks}?labelSelector=michelangelo%2Fpipeline-run%3Drun-1").code == 200
    entry = task_run(make_document, "run-1")
    assert own.post(tasks, entry).code == 201
    relabel = {"metadata": {"labels": {"michelangelo/pipeline-run": "run-2"}}}
    url = f"{tasks}/{entry['metadata']['name']}"
    refused(own.send("PATCH", url, relabel, content_type=merge), 403, "Forbidden")
    refused(own.post(tasks, task_run(make_document, "run-2")), 403, "Forbidden")
    later = auth.RunScope(space, "run-1", "uid-of-a-run-before")
    stale = type(served.http)(served.http.url, served.run_tokens.issue(later, lifetime_seconds=600))
    refused(stale.get(f"{runs}/run-1"), 403, "Forbidden")


def task_run(make_document: Documents, run: str) -> dict[str, Any]:
    spec = {"pipelineRun": run, "step": "flow/a#1", "attempt": 1, "type": "Task", "task": "a", "fingerprint": "f"}
    labels = {"michelangelo/pipeline-run": run}
    return make_document("TaskRun", f"{run}-0123456789ab-1", labels=labels, spec=spec, status={"state": "Running"})
