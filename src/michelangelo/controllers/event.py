"""Event: forgotten when it has not happened again for an hour."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import Informer
from michelangelo.meta import timestamps
from michelangelo.runtime import controller
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request, Result

__all__ = ["TTL", "EventReconciler", "sources"]

TTL: Final = timedelta(hours=1)
"""As in Kubernetes."""


class EventReconciler:
    def __init__(
        self,
        client: Client,
        events: Informer,
        *,
        ttl: timedelta = TTL,
        clock: timestamps.Clock = timestamps.system_clock,
    ) -> None:
        self._client = client
        self._events = events
        self._ttl = ttl
        self._clock = clock

    def reconcile(self, request: Request) -> Result:
        event = self._events.get(request.name, namespace=request.namespace)
        if event is None:
            return Result()
        left = (_last_seen(event) + self._ttl - self._clock()).total_seconds()
        if left > 0:
            return Result(requeue_after_seconds=left)
        metadata = event["metadata"]
        try:
            self._client.delete(
                "Event",
                request.name,
                namespace=request.namespace,
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
            )
        except errors.NotFoundError:
            pass
        return Result()


def sources(manager: Manager) -> list[controller.Source]:
    return [controller.Source(manager.informer("Event"), controller.itself)]


def _last_seen(event: Object) -> datetime:
    series = event.get("series") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return timestamps.parse(seen or event["metadata"]["creationTimestamp"])
