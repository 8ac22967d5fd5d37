"""Signals of a run: what people and other programs send to a workflow that waits (`uniflow.wait_for_signal`).

Each is an object of its own, and the n-th wait for a name gets the n-th signal by order of creation. `Mailbox` keeps
those that no wait has consumed yet and hands over the next one; a thread of its own reads the watch, from the first
wait on. What was consumed is recorded in the journal by the scheduler, not here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from michelangelo import errors
from michelangelo.client.client import Client, Object, Watch
from michelangelo.meta import labels

__all__ = ["Mailbox", "Signal", "SignalSource", "watch_signals"]


@dataclass(frozen=True, slots=True)
class Signal:
    uid: str
    name: str
    payload: Any
    order: int


SignalSource = Callable[[Callable[[Signal], None]], Callable[[], None]]
"""Begins to deliver all signals of the run, old ones first and in order, to a function; returns how to stop."""


class Mailbox:
    """Unconsumed signals by name, in order of creation. Used by one thread."""

    def __init__(self, consumed: Iterable[str] = ()) -> None:
        self._consumed = set(consumed)
        self._waiting: dict[str, list[Signal]] = {}

    def put(self, signal: Signal) -> None:
        if signal.uid not in self._consumed and all(
            signal.uid != one.uid for one in self._waiting.get(signal.name, ())
        ):
            self._waiting.setdefault(signal.name, []).append(signal)
            self._waiting[signal.name].sort(key=lambda one: one.order)

    def consume(self, name: str) -> Signal | None:
        waiting = self._waiting.get(name)
        if not waiting:
            return None
        signal = waiting.pop(0)
        self._consumed.add(signal.uid)
        return signal


def watch_signals(client: Client, namespace: str, run: str) -> SignalSource:
    """The Signal objects of a run as a `SignalSource`."""

    def begin(deliver: Callable[[Signal], None]) -> Callable[[], None]:
        reader = _Reader(client, namespace, f"{labels.PIPELINE_RUN}={run}", deliver)
        reader.start()
        return reader.stop

    return begin


class _Reader:
    """List, then watch from there; again from the start when the watch breaks. The mailbox knows what it has had."""

    def __init__(self, client: Client, namespace: str, selector: str, deliver: Callable[[Signal], None]) -> None:
        self._client = client
        self._namespace = namespace
        self._selector = selector
        self._deliver = deliver
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._watch is not None:
            self._watch.close()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._read()
            except (errors.ExpiredError, errors.UnavailableError):
                self._stopped.wait(0.5)

    def _read(self) -> None:
        listed = self._client.list("Signal", namespace=self._namespace, label_selector=self._selector)
        for signal in sorted(map(_signal, listed.items), key=lambda one: one.order):
            self._deliver(signal)
        watch = self._client.watch(
            "Signal",
            namespace=self._namespace,
            label_selector=self._selector,
            resource_version=listed.resource_version,
        )
        self._watch = watch
        try:
            while not self._stopped.is_set():
                event = watch.next()
                if event is None:
                    return
                if event.type == "ADDED":
                    self._deliver(_signal(event.object))
        finally:
            watch.close()


def _signal(obj: Object) -> Signal:
    metadata, spec = obj["metadata"], obj["spec"]
    return Signal(metadata["uid"], spec["name"], spec.get("payload"), int(metadata["resourceVersion"]))
