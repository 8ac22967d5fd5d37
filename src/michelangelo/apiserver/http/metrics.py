"""What Prometheus reads of a server. Each server has a registry of its own, so that several in one process do not
mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, exposition

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = exposition.CONTENT_TYPE_LATEST
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    def __init__(self, revision: Callable[[], int]) -> None:
        """`revision` gives the store's newest one."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "michelangelo_apiserver_requests",
            "Requests by verb, resource and HTTP status.",
            ("verb", "resource", "code"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "michelangelo_apiserver_request_duration_seconds",
            "Time to answer a request, but for watches and log streams.",
            ("verb", "resource"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._watches = Gauge("michelangelo_apiserver_watches", "Open watches.", ("resource",), registry=self._registry)
        store = Gauge("michelangelo_store_revision", "The newest revision of the store.", registry=self._registry)
        store.set_function(revision)
        # A child per label set is looked up under a lock and by a hash of its labels: 5 µs that every request would
        # pay.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, verb: str, resource: str, code: int, seconds: float) -> None:
        children = self._children.get((verb, resource, code))
        if children is None:
            children = (
                self._requests.labels(verb, resource, str(code)),
                self._durations.labels(verb, resource),
            )
            self._children[verb, resource, code] = children
        children[0].inc()
        if verb not in ("watch", "follow"):
            children[1].observe(seconds)

    def watch_opened(self, resource: str) -> None:
        self._watches.labels(resource).inc()

    def watch_closed(self, resource: str) -> None:
        self._watches.labels(resource).dec()

    def render(self) -> bytes:
        return exposition.generate_latest(self._registry)
