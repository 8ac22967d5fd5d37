"""A real API server in this process, over the memory store, for everything that the runtime does with a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client.client import Client, Object
from michelangelo.storage.memory import MemoryStore


@pytest.fixture
def client() -> Iterator[Client]:
    """A client of a server that has the namespace `demo`."""
    store = MemoryStore()
    inprocess = InProcessClient(ApiServer(store))
    inprocess.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}})
    yield inprocess
    inprocess.close()
    store.close()


@pytest.fixture
def pipeline(client: Client) -> Callable[..., Object]:
    """Creates a small pipeline in `demo`."""

    def make(name: str, **labels: str) -> Object:
        return client.create(
            {
                "apiVersion": "michelangelo.api/v2",
                "kind": "Pipeline",
                "metadata": {"name": name, "namespace": "demo", "labels": labels},
                "spec": {"manifest": {"filePath": "flow.py", "uniflowFunction": "train"}},
            }
        )

    return make
