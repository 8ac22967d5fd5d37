"""Events are forgotten an hour after they happened last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from michelangelo.client.client import Client, Object
from michelangelo.controllers.event import EventReconciler
from michelangelo.runtime.reconciler import Request, Result


@pytest.fixture
def reconcile(bench: Any, clock: Any) -> Callable[[], Result]:
    reconciler = EventReconciler(bench.client, bench["Event"], clock=clock)

    def look() -> Result:
        bench.catch_up()
        return reconciler.reconcile(Request("demo", "e"))

    return look


def make(client: Client, last: str) -> None:
    event: Object = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "demo"},
        "involvedObject": {"kind": "Pipeline", "name": "p", "namespace": "demo"},
        "lastTimestamp": last,
    }
    client.create(event)


def test_event_goes_after_an_hour(client: Client, clock: Any, reconcile: Callable[[], Result]) -> None:
    make(client, "2026-01-31T12:00:00Z")
    assert reconcile() == Result(requeue_after_seconds=3600)
    clock.advance(3600)
    reconcile()
    assert client.list("Event").items == []


def test_event_that_happened_again_stays(client: Client, clock: Any, reconcile: Callable[[], Result]) -> None:
    make(client, "2026-01-31T11:30:00Z")
    clock.advance(1800)
    client.patch("Event", "e", {"lastTimestamp": "2026-01-31T12:20:00Z"}, namespace="demo")
    assert reconcile() == Result(requeue_after_seconds=3000)
    assert len(client.list("Event").items) == 1
