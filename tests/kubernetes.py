"""A real Kubernetes API server for the tests that ask for the fixture `kubernetes`, with CRDs made from our schema.

It is started by a script, found through MICHELANGELO_KUBE_API or beside the checkout; where script or etcd cannot be
had, those tests skip and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from michelangelo.api.v2 import crd, registry
from michelangelo.client import kubeconfig
from michelangelo.client.http import HttpClient


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
