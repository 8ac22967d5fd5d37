"""Projects have their namespace, say so, and take it with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.controllers.project import ProjectReconciler
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request

Until = Callable[..., Object]


@pytest.fixture
def project(client: Client) -> Object:
    return client.create(
        {"apiVersion": "michelangelo.api/v2", "kind": "Project", "metadata": {"name": "team"}, "spec": {"tier": 2}}
    )


@pytest.fixture
def reconcile(bench: Any, clock: Any) -> Callable[[], None]:
    reconciler = ProjectReconciler(bench.client, bench["Project"], bench["Namespace"], clock=clock)

    def look() -> None:
        bench.catch_up()
        reconciler.reconcile(Request("team", "team"))

    return look


def test_project_becomes_ready(client: Client, project: Object, reconcile: Callable[[], None]) -> None:
    reconcile()
    status = client.get("Project", "team", namespace="team")["status"]
    assert (status["state"], status["phase"]) == ("Ready", "Development")
    assert status["lastUpdateTime"] == "2026-01-31T12:00:00Z"
    assert [(one["type"], one["status"]) for one in status["conditions"]] == [("Ready", "True")]


def test_second_look_writes_nothing(client: Client, project: Object, clock: Any, reconcile: Callable[[], None]) -> None:
    reconcile()
    before = client.get("Project", "team", namespace="team")
    clock.advance(3600)
    reconcile()
    assert client.get("Project", "team", namespace="team") == before


def test_phase_that_somebody_set_is_kept(client: Client, project: Object, reconcile: Callable[[], None]) -> None:
    patch: Object = {"status": {"phase": "Production"}}
    client.patch("Project", "team", patch, namespace="team", subresource="status")
    reconcile()
    assert client.get("Project", "team", namespace="team")["status"]["phase"] == "Production"


def test_deleted_project_takes_its_namespace_and_everything_in_it(
    client: Client, manager: Manager, project: Object, until: Until, until_gone: Callable[..., None]
) -> None:
    until("Project", "team", lambda obj: (obj.get("status") or {}).get("state") == "Ready", namespace="team")
    pipeline: Object = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Pipeline",
        "metadata": {"name": "p", "namespace": "team"},
        "spec": {"manifest": {"filePath": "flow.py", "uniflowFunction": "train"}},
    }
    client.create(pipeline)
    client.delete("Project", "team", namespace="team")
    until_gone("Namespace", "team")
    for kind in ("Project", "Pipeline", "Revision", "Event"):
        assert client.list(kind, namespace="team").items == []
    with pytest.raises(errors.NotFoundError):
        client.get("Namespace", "team")
