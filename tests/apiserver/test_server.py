"""The server as a process sees it: ports, TLS, start and stop."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from michelangelo import errors
from michelangelo.apiserver import auth, tls
from michelangelo.apiserver.http.app import AppParts
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.storage.memory import MemoryStore

if TYPE_CHECKING:
    from tests.apiserver.conftest import Platform, Served

TOKEN = "a-token-of-enough-length"


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    opened = MemoryStore()
    yield opened
    opened.close()


@pytest.fixture
def parts(store: MemoryStore) -> AppParts:
    return AppParts(ApiServer(store), auth.Authenticator(TOKEN, auth.RunTokens(b"key")))


def test_port_in_use_says_so(parts: AppParts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.SettingsError, match=f"port {port} of 127.0.0.1 is in use"):
            HttpServer(parts, port=port).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "ml.example", "10.0.0.1"])
def test_addresses_that_others_can_reach_need_a_flag(parts: AppParts, host: str) -> None:
    with pytest.raises(errors.SettingsError, match="can be reached from other machines"):
        HttpServer(parts, host=host)
    HttpServer(parts, host=host, allow_remote=True)


def test_address_of_another_machine_is_refused(parts: AppParts) -> None:
    with pytest.raises(errors.SettingsError, match="cannot listen"):
        HttpServer(parts, host="192.0.2.1", allow_remote=True).start()


def test_stop_ends_watches_and_closes_the_port(
    parts: AppParts, served: Served, open_platform: Callable[[ApiServer], Platform]
) -> None:
    open_platform(parts.api)
    server = HttpServer(parts)
    port = server.start()
    events = type(served.http)(server.url, TOKEN).events("/apis/michelangelo.api/v2/projects?watch=true")
    assert next(events)["type"] == "ADDED"
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert list(events) == []
    stopping.join(20)
    assert not stopping.is_alive()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    server.stop()


def test_server_speaks_tls_with_its_own_authority(parts: AppParts, served: Served, tmp_path: Path) -> None:
    certificate = tls.ensure(tmp_path / "tls")
    server = HttpServer(parts, certificate=certificate)
    server.start()
    try:
        assert server.url.startswith("https://127.0.0.1:")
        client = type(served.http)(server.url, TOKEN, certificate.authority)
        assert client.get("/apis").code == 200
        by_name = type(served.http)(server.url.replace("127.0.0.1", "localhost"), TOKEN, certificate.authority)
        assert by_name.get("/apis").code == 200
    finally:
        server.stop()


def test_damaged_certificate_is_refused(parts: AppParts, tmp_path: Path) -> None:
    certificate = tls.ensure(tmp_path / "tls")
    certificate.key.write_bytes(b"rubbish")
    with pytest.raises(errors.SettingsError, match="certificate"):
        HttpServer(parts, certificate=certificate).start()


def test_foreground_server_tells_when_it_is_ready(parts: AppParts, served: Served) -> None:
    server = HttpServer(parts)
    server.bind()
    answered: list[int] = []

    def ask() -> None:
        answered.append(type(served.http)(server.url, TOKEN).get("/readyz").code)
        server.stop()

    server.serve(ready=lambda: threading.Thread(target=ask).start())
    assert answered == [200]


def test_store_that_fails_is_an_error_with_a_status(
    parts: AppParts,
    served: Served,
    store: MemoryStore,
    open_platform: Callable[[ApiServer], Platform],
    caplog: pytest.LogCaptureFixture,
) -> None:
    open_platform(parts.api)
    server = HttpServer(parts)
    server.start()
    try:
        store.close()
        with caplog.at_level(logging.ERROR):
            reply = type(served.http)(server.url, TOKEN).get("/apis/michelangelo.api/v2/namespaces/team/pipelines")
        assert (reply.code, reply.json["reason"]) == (500, "InternalError")
        assert "the store cannot do this now" in reply.json["message"]
    finally:
        server.stop()
