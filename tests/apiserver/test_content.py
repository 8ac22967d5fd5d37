"""Blobs and logs over HTTP."""

from __future__ import annotations

import hashlib
import http.client
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from michelangelo.api.v2 import registry
from michelangelo.apiserver import auth, verb
from michelangelo.apiserver.patching import Patch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.apiserver.conftest import RawHttp, Served

DATA = b"\x00\xff data of any kind" * 100_000
HEX = hashlib.sha256(DATA).hexdigest()


def upload(client: RawHttp, digest: str, data: bytes = DATA) -> int:
    return client.send("PUT", f"/blobs/sha256/{digest}", data, content_type="application/octet-stream").code


def test_blob_comes_back_as_it_went_in(http_client: RawHttp, served: Served) -> None:
    assert http_client.send("HEAD", f"/blobs/sha256/{HEX}").code == 404
    assert upload(http_client, HEX) == 201
    assert upload(http_client, HEX) == 201
    assert http_client.get(f"/blobs/sha256/{HEX}").body == DATA
    assert http_client.send("HEAD", f"/blobs/sha256/{HEX}").code == 200
    assert served.blobs.get(f"sha256:{HEX}") == DATA


def test_blob_of_another_digest_is_refused_and_not_stored(http_client: RawHttp, served: Served) -> None:
    wrong = hashlib.sha256(b"something else").hexdigest()
    data = b"what nobody has stored"
    assert upload(http_client, wrong, data) == 400
    assert not served.blobs.has(f"sha256:{wrong}")
    assert not served.blobs.has(f"sha256:{hashlib.sha256(data).hexdigest()}")


@pytest.mark.parametrize("digest", ["abc", HEX.upper(), "..%2F..%2Ftoken", HEX + "0"])
def test_what_is_no_digest_is_refused(http_client: RawHttp, digest: str) -> None:
    assert http_client.get(f"/blobs/sha256/{digest}").code in (400, 404)


def test_blobs_and_logs_take_no_other_methods(http_client: RawHttp) -> None:
    upload(http_client, HEX)
    assert http_client.send("DELETE", f"/blobs/sha256/{HEX}").code == 405
    assert http_client.send("PUT", "/logs/a/b/c", b"").code == 405


def test_log_is_read_from_an_offset(http_client: RawHttp, served: Served) -> None:
    write_log(served, "reading", "first\nsecond\n")
    assert http_client.get("/logs/team/reading/task-1").body == b"first\nsecond\n"
    assert http_client.get("/logs/team/reading/task-1?offset=6").body == b"second\n"
    assert http_client.get("/logs/team/reading/task-1?offset=600").body == b""


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("team/run/missing", 404),
        ("team/..%2F..%2Fsecret/x", 404),
        ("team/../x", 404),
        ("team/%2e%2e/x", 404),
        ("team/reading/task-1?offset=-1", 400),
        ("team/reading/task-1?offset=x", 400),
        ("team/reading/task-1?follow=perhaps", 400),
    ],
)
def test_bad_log_requests(http_client: RawHttp, served: Served, path: str, code: int) -> None:
    write_log(served, "reading", "x")
    (served.logs / "secret").write_text("x")
    assert http_client.get(f"/logs/{path}").code == code


def test_log_is_followed_until_its_task_run_ends(
    served: Served, space: str, make_document: Callable[..., dict[str, Any]]
) -> None:
    name = "run-1-0123456789ab-1"
    spec = {"pipelineRun": "run-1", "step": "flow/a#1", "attempt": 1, "type": "Task", "task": "a", "fingerprint": "f"}
    entry = make_document("TaskRun", name, spec=spec, status={"state": "Running"})
    verb.run(served.api.create(registry.get("TaskRun"), space, entry))
    path = served.logs / space / "run-1" / f"{name}.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one\n")
    parts = urlsplit(served.http.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    headers = {"authorization": f"Bearer {served.http.token}"}
    connection.request("GET", f"/logs/{space}/run-1/{name}?follow=true", headers=headers)
    response = connection.getresponse()
    assert response.readline() == b"one\n"
    with path.open("ab") as log:
        log.write(b"two\n")
    assert response.readline() == b"two\n"
    ended = {"status": {"state": "Succeeded", "endTime": "2026-01-31T12:00:00.000000Z", "final": True}}
    verb.run(served.api.patch(registry.get("TaskRun"), space, name, Patch("merge", ended)))
    assert response.read() == b""
    connection.close()


def test_run_token_reads_its_own_log(served: Served) -> None:
    write_log(served, "run-1", "mine")
    write_log(served, "run-2", "not mine")
    token = served.run_tokens.issue(auth.RunScope("team", "run-1", "uid"), lifetime_seconds=60)
    own = type(served.http)(served.http.url, token)
    assert own.get("/logs/team/run-1/task-1").body == b"mine"
    assert own.get("/logs/team/run-2/task-1").code == 403
    assert own.get("/logs/other/run-1/task-1").code == 403


def write_log(served: Served, run: str, text: str) -> None:
    path = served.logs / "team" / run / "task-1.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
