"""The HTTP client where the network is not as it should be. The server is a real one, that answers by a script."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.apiserver import auth, tls
from michelangelo.apiserver.http.app import AppParts
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client import kubeconfig
from michelangelo.client.http import HttpClient
from michelangelo.client.transport import Transport
from michelangelo.storage.memory import MemoryStore

DEADLINE_SECONDS = 20.0
HANG_UP = b""
Script = Callable[..., "ScriptedServer"]


class ScriptedServer:
    """Reads one request per answer of its script, and sends that answer as it is; HANG_UP closes the connection."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._answers:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                self._serve(connection, lines)

    def _serve(self, connection: socket.socket, lines: Any) -> None:
        while self._answers:
            head = lines.readline().decode()
            if not head:
                return
            length = 0
            while (line := lines.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            lines.read(length)
            self.requests.append(head.rpartition(" ")[0])
            answer = self._answers.pop(0)
            if answer == HANG_UP:
                return
            connection.sendall(answer)
            if b"Connection: close" in answer:
                return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(DEADLINE_SECONDS)


def answer(body: Any, code: int = 200, **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {code} Said\r\nContent-Length: {len(data)}\r\n{more}\r\n".encode() + data


def stream(*events: Any) -> bytes:
    """A watch that sends these and ends well."""
    lines = [json.dumps(event).encode() + b"\n" for event in events]
    chunks = b"".join(f"{len(line):x}\r\n".encode() + line + b"\r\n" for line in lines)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def pipeline(version: int, name: str = "a") -> dict[str, Any]:
    return {"kind": "Pipeline", "metadata": {"name": name, "namespace": "demo", "resourceVersion": str(version)}}


@pytest.fixture
def serve() -> Iterator[Script]:
    started: list[ScriptedServer] = []

    def start(*answers: bytes) -> ScriptedServer:
        one = ScriptedServer(*answers)
        started.append(one)
        return one

    yield start
    for one in started:
        one.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., HttpClient]]:
    opened: list[HttpClient] = []

    def make(url: str, **fields: Any) -> HttpClient:
        client = HttpClient(kubeconfig.Endpoint(url, **fields), timeout_seconds=DEADLINE_SECONDS)
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


Connect = Callable[..., HttpClient]


def test_no_server_is_one_sentence_that_says_what_to_do(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(errors.UnavailableError) as caught:
        connect(f"https://127.0.0.1:{port}").get("Pipeline", "a", namespace="demo")
    assert str(caught.value) == f"no server answers at https://127.0.0.1:{port}: start one with `mactl serve`"


def test_refused_connection_is_tried_again_also_for_writes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    naps: list[float] = []
    transport = Transport(kubeconfig.Endpoint(f"http://127.0.0.1:{port}"), sleep=naps.append)
    with pytest.raises(errors.UnavailableError):
        transport.send("POST", "/apis", body={})
    assert len(naps) == 2


def test_unknown_host_says_so(connect: Connect) -> None:
    with pytest.raises(errors.UnavailableError, match=r"the host of .* is unknown"):
        connect("http://no-such-host.invalid").get("Pipeline", "a", namespace="demo")


def test_read_is_repeated_when_the_connection_breaks(serve: Script, connect: Connect) -> None:
    server = serve(HANG_UP, answer(pipeline(1)))
    assert connect(server.url).get("Pipeline", "a", namespace="demo") == pipeline(1)
    assert len(server.requests) == 2


def test_write_is_not_repeated_when_the_connection_breaks(serve: Script, connect: Connect) -> None:
    server = serve(HANG_UP, answer(pipeline(1)))
    with pytest.raises(errors.UnavailableError, match="broke"):
        connect(server.url).patch("Pipeline", "a", {}, namespace="demo")
    assert len(server.requests) == 1


def test_busy_server_is_asked_again_when_it_says(serve: Script, connect: Connect) -> None:
    busy = answer({"kind": "Status", "code": 429, "reason": "TooManyRequests"}, 429, Retry_After="0")
    server = serve(busy, answer(pipeline(1)))
    assert connect(server.url).patch("Pipeline", "a", {}, namespace="demo") == pipeline(1)
    server = serve(busy, busy, busy)
    with pytest.raises(errors.TooManyRequestsError):
        connect(server.url).patch("Pipeline", "a", {}, namespace="demo")


def test_connection_is_kept_alive(serve: Script, connect: Connect) -> None:
    accepted = serve(answer(pipeline(1)), answer(pipeline(2)), answer(pipeline(3)))
    client = connect(accepted.url)
    versions = [client.get("Pipeline", "a", namespace="demo")["metadata"]["resourceVersion"] for _ in range(3)]
    assert versions == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (404, b"404 page not found\n", errors.NotFoundError),
        (502, b"<html>bad gateway</html>", errors.UnavailableError),
        (500, b"", errors.InternalError),
        (401, {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "no"}, errors.UnauthorizedError),
    ],
)
def test_refusals_are_errors_by_meaning(
    serve: Script, connect: Connect, code: int, body: Any, expected: type[errors.ApiError]
) -> None:
    server = serve(*[answer(body, code)] * 3)
    with pytest.raises(expected):
        connect(server.url).get("Pipeline", "a", namespace="demo")


def test_answer_that_is_no_json_is_an_error(serve: Script, connect: Connect) -> None:
    with pytest.raises(errors.InternalError, match="no JSON"):
        connect(serve(answer(b"<html>")).url).get("Pipeline", "a", namespace="demo")


# --- watches ----------------------------------------------------------------------------------------------


def test_watch_goes_on_where_the_server_ended_it(serve: Script, connect: Connect) -> None:
    server = serve(
        stream({"type": "ADDED", "object": pipeline(5)}, {"type": "BOOKMARK", "object": pipeline(7, "")}),
        HANG_UP,  # The connection broke before an answer: a read, so it is repeated.
        stream({"type": "MODIFIED", "object": pipeline(8)}),
        stream({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}}),
    )
    watch = connect(server.url).watch("Pipeline", namespace="demo", resource_version="4")
    events = [watch.next(DEADLINE_SECONDS) for _ in range(3)]
    assert [event.type for event in events if event] == ["ADDED", "BOOKMARK", "MODIFIED"]
    with pytest.raises(errors.ExpiredError):
        watch.next(DEADLINE_SECONDS)
    versions = [request.partition("resourceVersion=")[2].partition("&")[0] for request in server.requests]
    assert versions == ["4", "7", "7", "8"]
    watch.close()


def test_watch_whose_server_is_gone_says_so_after_its_last_event(serve: Script, connect: Connect) -> None:
    server = serve(stream({"type": "ADDED", "object": pipeline(5)}), HANG_UP, HANG_UP, HANG_UP)
    watch = connect(server.url).watch("Pipeline", namespace="demo", resource_version="4")
    event = watch.next(DEADLINE_SECONDS)
    assert event is not None
    assert event.type == "ADDED"
    with pytest.raises(errors.UnavailableError):
        watch.next(DEADLINE_SECONDS)
    watch.close()


def test_watch_of_a_server_that_ends_every_stream_gives_up(serve: Script, connect: Connect) -> None:
    server = serve(*[stream()] * 10)
    watch = connect(server.url).watch("Pipeline", namespace="demo", resource_version="4")
    with pytest.raises(errors.UnavailableError, match="at once"):
        watch.next(DEADLINE_SECONDS)
    watch.close()


def test_watch_that_sends_nonsense_is_an_error(serve: Script, connect: Connect) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nnope\n\r\n0\r\n\r\n")
    watch = connect(server.url).watch("Pipeline", namespace="demo", resource_version="4")
    with pytest.raises(errors.InternalError, match="nope"):
        watch.next(DEADLINE_SECONDS)
    watch.close()


def test_events_that_come_in_pieces_are_whole(serve: Script, connect: Connect) -> None:
    line = json.dumps({"type": "ADDED", "object": pipeline(5)}).encode() + b"\n"
    pieces = [line[:7], line[7:50], line[50:] + line[:3], line[3:]]
    chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    server = serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    watch = connect(server.url).watch("Pipeline", namespace="demo", resource_version="4")
    assert [event.object for event in (watch.next(DEADLINE_SECONDS), watch.next(DEADLINE_SECONDS)) if event] == [
        pipeline(5)
    ] * 2
    watch.close()


def test_watch_survives_a_restart_of_the_server(tmp_path: Path, connect: Connect) -> None:
    """Our own server, stopped and started again on the same port and store: nothing missed, nothing twice."""
    store = MemoryStore()

    def start(port: int) -> HttpServer:
        parts = AppParts(ApiServer(store), auth.Authenticator("a-token-of-the-tests", auth.RunTokens(b"0" * 32)))
        one = HttpServer(parts, port=port)
        one.start()
        return one

    first = start(0)
    client = connect(first.url, token="a-token-of-the-tests")
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}})
    watch = client.watch("Namespace", resource_version="0")
    port = int(first.url.rpartition(":")[2])
    first.stop()
    second = start(port)
    try:
        client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "later"}})
        seen: list[str] = []
        while "later" not in seen:
            try:
                event = watch.next(DEADLINE_SECONDS)
            except errors.UnavailableError:
                # It was tried while there was no server; who watches goes on from what it has seen.
                watch = client.watch("Namespace", resource_version="1")
                continue
            assert event is not None
            if event.type == "ADDED":
                seen.append(event.object["metadata"]["name"])
        assert sorted(set(seen) - {"demo"}) == ["later"]
    finally:
        watch.close()
        second.stop()
        store.close()


# --- trust ------------------------------------------------------------------------------------------------


def test_certificate_of_an_unknown_authority_is_not_trusted(
    server: kubeconfig.Endpoint, connect: Connect, tmp_path: Path
) -> None:
    with pytest.raises(errors.UnavailableError, match="certificate authority in the kubeconfig"):
        connect(server.server, token=server.token).list("Pipeline")
    stranger = tls.ensure(tmp_path).authority.read_text()
    with pytest.raises(errors.UnavailableError, match="no trusted connection"):
        connect(server.server, token=server.token, ca=stranger).list("Pipeline")


def test_certificate_must_carry_the_servers_name(server: kubeconfig.Endpoint, connect: Connect) -> None:
    trusted = {"token": server.token, "ca": server.ca}
    assert connect(server.server, server_name="localhost", **trusted).list("Pipeline").resource_version
    with pytest.raises(errors.UnavailableError):
        connect(server.server, server_name="elsewhere.example", **trusted).list("Pipeline")


def test_insecure_connection_is_made_when_asked_for(server: kubeconfig.Endpoint, connect: Connect) -> None:
    assert connect(server.server, token=server.token, insecure=True).list("Pipeline").resource_version


def test_wrong_token_is_refused(server: kubeconfig.Endpoint, connect: Connect) -> None:
    with pytest.raises(errors.UnauthorizedError):
        connect(server.server, token="wrong", ca=server.ca).list("Pipeline")


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(
        kubeconfig.Endpoint("https://h", token="s3cret", password="s3cret", client_key="s3cret")
    )


@pytest.mark.parametrize("url", ["127.0.0.1:1", "ftp://h", "https://h:port", "https://"])
def test_server_that_is_no_url_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(errors.SettingsError):
        HttpClient(kubeconfig.Endpoint(url))


def test_authority_that_is_no_certificate_is_a_wrong_setting() -> None:
    with pytest.raises(errors.SettingsError, match="no PEM certificate"):
        HttpClient(kubeconfig.Endpoint("https://h", ca="nonsense"))
