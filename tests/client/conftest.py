"""The clients of the conformance suite. All of them are real: a client in process over the memory and the SQLite store,
HTTP to our own server, and (slow) HTTP to a real Kubernetes API server, with CRDs made from our schema.

The Kubernetes API server is the fixture `kubernetes` of tests/kubernetes.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from michelangelo.apiserver import auth, tls
from michelangelo.apiserver.http.app import AppParts
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client import kubeconfig
from michelangelo.client.client import Client
from michelangelo.client.http import HttpClient
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore

HTTP = "http"
KUBERNETES = "kubernetes"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kubeconfig.Endpoint]:
    """Our own server, with TLS and a token, as `mactl serve` has it."""
    folder = tmp_path_factory.mktemp("server")
    certificate = tls.ensure(folder)
    store = MemoryStore()
    authenticator = auth.Authenticator("a-token-of-the-tests", auth.RunTokens(b"0" * 32))
    one = HttpServer(AppParts(ApiServer(store), authenticator), certificate=certificate)
    one.start()
    yield kubeconfig.Endpoint(one.url, token="a-token-of-the-tests", ca=Path(certificate.authority).read_text())
    one.stop()
    store.close()


@pytest.fixture(params=["memory", "sqlite", HTTP, pytest.param(KUBERNETES, marks=pytest.mark.slow)])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """Each kind of client, over a server of its own (those over HTTP share one, and take namespaces of their own)."""
    if request.param in (HTTP, KUBERNETES):
        over_http = HttpClient(request.getfixturevalue("server" if request.param == HTTP else "kubernetes"))
        yield over_http
        over_http.close()
        return
    store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "michelangelo.db")
    inprocess = InProcessClient(ApiServer(store))
    yield inprocess
    inprocess.close()
    store.close()


@pytest.fixture
def namespace(client: Client) -> str:
    """A new namespace on the client's server."""
    name = f"space-{uuid.uuid4().hex[:8]}"
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def pipeline(namespace: str) -> Callable[..., dict[str, object]]:
    """Makes documents of small, valid pipelines."""

    def make(name: str, **labels: str) -> dict[str, object]:
        return {
            "apiVersion": "michelangelo.api/v2",
            "kind": "Pipeline",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"manifest": {"filePath": "flow.py", "uniflowFunction": "train"}, "description": "first"},
        }

    return make
