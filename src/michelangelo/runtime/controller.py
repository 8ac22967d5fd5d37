"""A controller: events from informers become requests in a work queue, and workers hand them to a reconciler.

It decides when and how often; *what* to do is the reconciler's. Its workers are one of the three places of the program
where every exception is caught: whatever goes wrong with one object must not keep the others from their turn.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from michelangelo import errors
from michelangelo.client.client import Object
from michelangelo.client.informer import Change, Informer
from michelangelo.runtime.reconciler import Reconciler, Request, Result, TerminalError
from michelangelo.runtime.recorder import Recorder
from michelangelo.runtime.workqueue import Backoff, WorkQueue

__all__ = ["Controller", "Mapper", "Observation", "Outcome", "Source", "itself", "label", "owner"]

_log = logging.getLogger(__name__)

Mapper: TypeAlias = Callable[[Object], Iterable[Request]]
Outcome: TypeAlias = Literal["success", "requeued", "conflict", "terminal", "error"]


@dataclass(frozen=True, slots=True)
class Source:
    """An informer, and which requests follow from one of its objects having changed."""

    informer: Informer
    requests: Mapper
    types: frozenset[str] = frozenset(("ADDED", "MODIFIED", "DELETED"))
    """The types of changes that count."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One pass of a reconciler, for metrics."""

    controller: str
    request: Request
    outcome: Outcome
    seconds: float
    waiting: int
    """Requests in the queue afterwards."""


def itself(obj: Object) -> Iterable[Request]:
    """The object is the one to reconcile."""
    metadata = obj["metadata"]
    yield Request(metadata.get("namespace") or "", metadata["name"])


def owner(kind: str) -> Mapper:
    """The owners of that kind are."""

    def requests(obj: Object) -> Iterable[Request]:
        for reference in obj["metadata"].get("ownerReferences") or ():
            if reference["kind"] == kind:
                yield Request(obj["metadata"].get("namespace") or "", reference["name"])

    return requests


def label(key: str) -> Mapper:
    """The object of the same namespace that the label names is."""

    def requests(obj: Object) -> Iterable[Request]:
        name = (obj["metadata"].get("labels") or {}).get(key)
        if name:
            yield Request(obj["metadata"].get("namespace") or "", name)

    return requests


class Controller:
    """May be started again after `stop`: every object is then looked at anew."""

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        sources: Sequence[Source],
        *,
        recorder: Recorder | None = None,
        num_workers: int = 2,
        backoff: Backoff | None = None,
        observe: Callable[[Observation], None] | None = None,
    ) -> None:
        """The first source is that of the reconciled objects themselves: events about failures are written on them."""
        self.name = name
        self._reconciler = reconciler
        self._sources = tuple(sources)
        self._recorder = recorder
        self._num_workers = num_workers
        self._backoff = backoff or Backoff()
        self._observe = observe
        self._queue: WorkQueue[Request] = WorkQueue(backoff=self._backoff)
        self._threads: list[threading.Thread] = []
        self._unsubscribe: list[Callable[[], None]] = []

    @property
    def informers(self) -> list[Informer]:
        return [source.informer for source in self._sources]

    def start(self) -> None:
        """Begin to work. The informers must be synced: what is not in a cache yet would look as if it did not exist."""
        queue = self._queue = WorkQueue(backoff=self._backoff)
        for source in self._sources:
            self._unsubscribe.append(source.informer.add_handler(_enqueue(queue, source)))
        for number in range(self._num_workers):
            thread = threading.Thread(target=self._work, args=(queue,), name=f"{self.name} {number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Take no further request; returns when the present ones are finished."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe.clear()
        self._queue.shutdown()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def enqueue(self, request: Request) -> None:
        """Look at an object for a reason that no informer tells."""
        self._queue.add(request)

    def _work(self, queue: WorkQueue[Request]) -> None:
        while (request := queue.get()) is not None:
            started = time.monotonic()
            try:
                outcome = self._reconcile(queue, request)
            finally:
                queue.done(request)
            if self._observe is not None:
                seconds = time.monotonic() - started
                self._observe(Observation(self.name, request, outcome, seconds, len(queue)))

    def _reconcile(self, queue: WorkQueue[Request], request: Request) -> Outcome:
        try:
            result = self._reconciler.reconcile(request)
        except errors.ConflictError as e:
            # Somebody else was faster: no failure, but the caches have to catch up first.
            _log.debug("%s: %s: %s", self.name, request, e)
            queue.add_rate_limited(request)
            return "conflict"
        except TerminalError as e:
            _log.warning("%s: %s cannot be reconciled: %s", self.name, request, e)
            queue.forget(request)
            self._report(request, "ReconcileFailed", str(e))
            return "terminal"
        except Exception as e:  # noqa: BLE001  # the outermost loop: one object's failure must not stop the others
            seconds = queue.add_rate_limited(request)
            expected = isinstance(e, errors.MichelangeloError)
            _log.warning("%s: %s: %s; again in %.2g s", self.name, request, e, seconds, exc_info=not expected)
            self._report(request, "ReconcileError", f"{type(e).__name__}: {e}")
            return "error"
        queue.forget(request)
        return self._requeue(queue, request, result)

    def _requeue(self, queue: WorkQueue[Request], request: Request, result: Result) -> Outcome:
        if result.requeue_after_seconds <= 0:
            return "success"
        queue.add_after(request, result.requeue_after_seconds)
        return "requeued"

    def _report(self, request: Request, reason: str, message: str) -> None:
        if self._recorder is None:
            return
        for informer in self.informers:
            if informer.kind == (request.kind or self._sources[0].informer.kind):
                obj = informer.get(request.name, namespace=request.namespace)
                if obj is not None:
                    self._recorder.event(obj, "Warning", reason, message)
                return


def _enqueue(queue: WorkQueue[Request], source: Source) -> Callable[[Change], None]:
    def handle(change: Change) -> None:
        if change.type not in source.types:
            return
        for request in source.requests(change.object):
            queue.add(request)
        if change.old is not None and change.type == "MODIFIED":
            # Who was owner, or was named by a label, has lost something.
            for request in source.requests(change.old):
                queue.add(request)

    return handle
