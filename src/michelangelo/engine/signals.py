"""Signals of a run: what people and other programs send to a workflow that waits (`uniflow.wait_for_signal`).

Each is an object of its own, and the n-th wait for a name gets the n-th signal by order of creation. `Mailbox` keeps
those that no wait has consumed yet and hands over the next one; a thread of its own reads the watch, from the first
wait on. What was consumed is recorded in the journal by the scheduler, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from michelangelo.client.client import Client, Object
from michelangelo.engine.watcher import Watcher
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
        reader = Watcher(
            client,
            "Signal",
            lambda event, obj: deliver(_signal(obj)) if event == "ADDED" else None,
            namespace=namespace,
            label_selector=f"{labels.PIPELINE_RUN}={run}",
        )
        reader.start()
        return reader.stop

    return begin


def _signal(obj: Object) -> Signal:
    metadata, spec = obj["metadata"], obj["spec"]
    return Signal(metadata["uid"], spec["name"], spec.get("payload"), int(metadata["resourceVersion"]))
