"""A deleted namespace is emptied, waits for what waits, and goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from michelangelo.api.v2 import registry
from michelangelo.client.client import Client, Object
from michelangelo.controllers.namespace import NamespaceReconciler
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request

Create = Callable[..., Object]
MANIFEST: Object = {"manifest": {"filePath": "flow.py", "uniflowFunction": "train"}}


def test_living_namespace_is_left_alone(client: Client, bench: Any, create: Create) -> None:
    create("Pipeline", "p", MANIFEST)
    bench.catch_up()
    NamespaceReconciler(client, bench["Namespace"]).reconcile(Request("", "demo"))
    assert len(client.list("Pipeline", namespace="demo").items) == 1


def test_namespace_waits_for_finalizers_and_says_so(client: Client, bench: Any, create: Create, clock: Any) -> None:
    create("Pipeline", "held", MANIFEST, finalizers=["example.com/hold"])
    create("Pipeline", "free", MANIFEST)
    client.delete("Namespace", "demo")
    bench.catch_up()
    reconciler = NamespaceReconciler(client, bench["Namespace"], clock=clock)
    assert reconciler.reconcile(Request("", "demo")).requeue_after_seconds > 0
    (condition,) = client.get("Namespace", "demo")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Drained", "False")
    assert condition["message"] == "waiting for the finalizers of 1 pipelines"
    assert [obj["metadata"]["name"] for obj in client.list("Pipeline").items] == ["held"]
    client.patch("Pipeline", "held", {"metadata": {"finalizers": None}}, namespace="demo")
    bench.catch_up()
    reconciler.reconcile(Request("", "demo"))
    assert client.list("Namespace", field_selector="metadata.name=demo").items == []


def test_namespace_with_every_kind_in_it_goes(
    client: Client, manager: Manager, create: Create, until_gone: Callable[..., None]
) -> None:
    create("Pipeline", "p", MANIFEST)
    create("Signal", "s", {"pipelineRun": "r", "name": "go"})
    create("Lease", "l", {"holderIdentity": "somebody", "leaseDurationSeconds": 15})
    client.delete("Namespace", "demo")
    until_gone("Namespace", "demo")
    for kind in registry.KINDS.values():
        if kind.namespaced:
            assert client.list(kind.kind, namespace="demo").items == []
