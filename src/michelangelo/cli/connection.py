"""The choice of transport: the server of the context when it answers, else the embedded platform of the home folder.

A verb asks `connect` for a `Connection` and never which of the two it got, but for what only a server can do. It starts
no server.
"""

from __future__ import annotations

import dataclasses
import importlib
import ipaddress
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from michelangelo import errors
from michelangelo.app import settings
from michelangelo.app.settings import Settings
from michelangelo.cli import contexts
from michelangelo.cli.content import Content, EmbeddedContent, HttpContent
from michelangelo.cli.invocation import Invocation
from michelangelo.client.client import Client
from michelangelo.client.http import HttpClient
from michelangelo.client.kubeconfig import Endpoint

__all__ = ["Connection", "connect", "server_version"]

_PROBE_SECONDS: Final = 2.0
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Connection:
    """A way to the objects, logs and blobs of one platform."""

    client: Client
    content: Content
    place: str
    """What people call it: the server's address, or the home folder."""
    default_namespace: str

    def namespace(self, given: str, *, everywhere: bool = False) -> str:
        """The project that a verb acts on; empty for all of them."""
        return "" if everywhere else given or self.default_namespace


@contextmanager
def connect(invocation: Invocation, *, server_only: bool = False) -> Iterator[Connection]:
    """A connection for the length of the block.

    Raises UnavailableError, with what to do, when no server answers and no embedded platform could serve instead (or
    `server_only`).
    """
    chosen = settings.load()
    endpoint = _endpoint(chosen, invocation)
    if endpoint is not None and _answers(endpoint):
        with _server(endpoint, chosen) as link:
            yield link
        return
    if endpoint is not None and not _is_local(endpoint):
        raise errors.UnavailableError(f"no server answers at {endpoint.server}: is it running? `mactl config view`")
    if server_only:
        raise errors.UnavailableError("no server answers, and this needs one: start it with `mactl serve`")
    if not chosen.database.exists():
        raise errors.UnavailableError(
            f"no server answers, and {chosen.home} holds no runs: start one with `mactl serve`, or run a pipeline "
            "with `python pipeline.py`"
        )
    with _embedded(chosen) as link:
        yield link


def server_version(invocation: Invocation) -> dict[str, str]:
    """`/version` of the server, and its address. Raises UnavailableError."""
    chosen = settings.load()
    endpoint = _endpoint(chosen, invocation)
    if endpoint is None or not _answers(endpoint):
        raise errors.UnavailableError("no server answers: start one with `mactl serve`")
    client = HttpClient(endpoint)
    try:
        document: dict[str, str] = json.loads(client.transport.send("GET", "/version"))
    finally:
        client.close()
    return {**document, "address": endpoint.server}


def _endpoint(chosen: Settings, invocation: Invocation) -> Endpoint | None:
    """The server of the context, or at the address of the settings; credentials go to the server that they are for."""
    endpoint = contexts.endpoint(chosen.home, invocation.context)
    if not chosen.api_server or invocation.context:
        return endpoint
    own = endpoint is not None and urlsplit(endpoint.server).netloc == urlsplit(chosen.api_server).netloc
    return dataclasses.replace(endpoint, server=chosen.api_server) if endpoint and own else Endpoint(chosen.api_server)


@contextmanager
def _server(endpoint: Endpoint, chosen: Settings) -> Iterator[Connection]:
    client = HttpClient(endpoint)
    try:
        yield Connection(client, HttpContent(client.transport), endpoint.server, endpoint.namespace or chosen.project)
    finally:
        client.close()


@contextmanager
def _embedded(chosen: Settings) -> Iterator[Connection]:
    # Only who has no server pays for loading one's inside.
    module = importlib.import_module("michelangelo.app.platform")
    with module.Platform.open(chosen) as platform:
        content = EmbeddedContent(platform.logs, platform.blobs, platform.collector)
        yield Connection(platform.client, content, str(chosen.home), chosen.project)


def _answers(endpoint: Endpoint) -> bool:
    """Whether something listens at the server's address."""
    address = urlsplit(endpoint.server)
    port = address.port or _PORTS[address.scheme]
    try:
        with socket.create_connection((address.hostname or "", port), _PROBE_SECONDS):
            return True
    except OSError:
        return False


def _is_local(endpoint: Endpoint) -> bool:
    host = urlsplit(endpoint.server).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
