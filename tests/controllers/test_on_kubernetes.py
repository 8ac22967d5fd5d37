"""All controllers against a real Kubernetes API server, whose own controllers do not run: ours take their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.client import kubeconfig
from michelangelo.client.client import Client, Object
from michelangelo.client.http import HttpClient
from michelangelo.runtime.manager import Manager

pytestmark = pytest.mark.slow


@pytest.fixture
def client(kubernetes: kubeconfig.Endpoint) -> Iterator[Client]:
    """Overrides the room's client: everything below it is then on Kubernetes."""
    over_http = HttpClient(kubernetes)
    yield over_http
    over_http.close()


def test_run_goes_its_way_and_everything_goes_with_its_project(
    client: Client,
    manager: Manager,
    drivers: Any,
    until: Callable[..., Object],
    until_gone: Callable[..., None],
) -> None:
    def create(kind: str, name: str, spec: Object) -> Object:
        metadata = {"name": name, "namespace": "team-on-kubernetes"}
        return client.create({"apiVersion": "michelangelo.api/v2", "kind": kind, "metadata": metadata, "spec": spec})

    def is_ready(obj: Object) -> bool:
        return bool((obj.get("status") or {}).get("state") == "Ready")

    team = "team-on-kubernetes"
    create("Project", team, {})
    until("Project", team, is_ready, namespace=team)
    create("Pipeline", "p", {"manifest": {"filePath": "flow.py:train", "parameters": {"type": "object"}}})
    until("Pipeline", "p", is_ready, namespace=team)
    drivers.on_start = drivers.begin
    run = create("PipelineRun", "r", {"pipeline": {"name": "p"}})
    until("PipelineRun", "r", lambda obj: (obj.get("status") or {}).get("state") == "Running", namespace=team)
    drivers.die(run)
    until("PipelineRun", "r", lambda obj: obj["status"]["conditions"][0]["metadata"]["starts"] == 2, namespace=team)
    create("PipelineRun", "wrong", {"pipeline": {"name": "absent"}})
    until("PipelineRun", "wrong", lambda obj: (obj.get("status") or {}).get("state") == "Failed", namespace=team)
    client.delete("Pipeline", "p", namespace=team, propagation="Foreground")
    until_gone("Pipeline", "p", namespace=team)
    assert [obj["metadata"]["name"] for obj in client.list("PipelineRun", namespace=team).items] == ["wrong"]
    assert client.list("Revision", namespace=team).items == []
    client.delete("Project", team, namespace=team)
    until_gone("Namespace", team)
    with pytest.raises(errors.NotFoundError):
        client.get("Project", team, namespace=team)
