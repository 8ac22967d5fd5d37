"""The clients of the conformance suite. All of them are real: a client in process over the memory and the SQLite store,
HTTP to our own server, and (slow) HTTP to a real Kubernetes API server, with CRDs made from our schema.

The Kubernetes API server is started by a script, found through MICHELANGELO_KUBE_API or beside the checkout; where script
or etcd cannot be had, its tests skip and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from michelangelo.api.v2 import crd, registry
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client import kubeconfig
from michelangelo.client.client import Client
from michelangelo.client.http import HttpClient
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore

KUBERNETES = "kubernetes"


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[kubeconfig.Endpoint]:
    """A Kubernetes API server that knows our kinds."""
    script = os.environ.get("MICHELANGELO_KUBE_API") or str(checkout.parent / "shared" / "bin" / "kube-api")
    if not os.access(script, os.X_OK):
        pytest.skip(f"no Kubernetes API server: {script} is not there (set MICHELANGELO_KUBE_API)")
    if not (os.environ.get("ETCD") or shutil.which("etcd")):
        pytest.skip("no etcd for the Kubernetes API server: apt-get install -y etcd-server")
    folder = tmp_path_factory.mktemp("kubernetes")
    subprocess.run([script, "start", str(folder)], check=True, stdout=subprocess.DEVNULL, timeout=180)
    try:
        endpoint = kubeconfig.load(folder / "kubeconfig")
        install_kinds(endpoint)
        yield endpoint
    finally:
        subprocess.run([script, "stop", str(folder)], check=True, timeout=60)


def install_kinds(endpoint: kubeconfig.Endpoint) -> None:
    client = HttpClient(endpoint)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    kinds = [kind for kind in registry.KINDS.values() if kind.group == registry.GROUP]
    for kind in kinds:
        client.transport.send("POST", path, body=crd.manifest(kind))
    for kind in kinds:
        wait_established(client, f"{path}/{kind.resource}")
    client.close()


def wait_established(client: HttpClient, path: str) -> None:
    """Its watch says when a kind can be used; there is nothing to sleep for."""
    collection, _, name = path.rpartition("/")
    query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": "60"}
    response = client.transport.open(collection, query=query, idle_timeout_seconds=60)
    try:
        for chunk in response.stream(1 << 16):
            if b'"status":"True","type":"Established"' in chunk or b'"type":"Established","status":"True"' in chunk:
                return
    finally:
        response.close()
    raise AssertionError(f"{name} was not established")


@pytest.fixture(params=["memory", "sqlite", "http", pytest.param(KUBERNETES, marks=pytest.mark.slow)])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """Each kind of client, over a server of its own (the Kubernetes API server is shared)."""
    if request.param == KUBERNETES:
        http = HttpClient(request.getfixturevalue("kubernetes"))
        yield http
        http.close()
        return
    if request.param == "http":
        pytest.skip("the HTTP server is not there yet")
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
