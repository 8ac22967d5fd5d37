"""A tracker behind a thread and a bounded queue: training hands over an event and goes on, however slow the tracker is.

When the queue is full the oldest steps are left out and counted; evaluations, alerts and the end never are. A request
that fails is tried again a few times; then the tracker is lost, which the recorder says once.
"""

from __future__ import annotations

import collections
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from michelangelo.llm.finetune.recording import Alert, Ended, Evaluated, Event, Saved, SinkError, Started, Stepped
from michelangelo.llm.finetune.trackers import values
from michelangelo.llm.finetune.trackers.tracker_run import TrackerRun

__all__ = ["BackgroundTracker", "Limits", "OpenRun"]

OpenRun = Callable[[str, int], TrackerRun]
"""Opens the tracker's run: its former name (empty: a new one), and the step after which it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much waits, and for how long."""

    max_queued: int = 1000
    """Events."""
    attempts: int = 3
    pause_seconds: float = 1.0
    """Before the second attempt; twice as long before each further one."""
    close_seconds: float = 60.0
    """For what is still queued when the run is over."""


_DEFAULT_LIMITS: Final = Limits()


class BackgroundTracker:
    """A sink. The tracker's run opens with the event Started, in the thread; `memory` is the file that keeps the run's
    name in the tracker, so that a resumed run continues it."""

    def __init__(self, name: str, open_run: OpenRun, memory: Path, limits: Limits = _DEFAULT_LIMITS) -> None:
        self.name = name
        self.num_dropped = 0
        """Steps that the tracker never got."""
        self._open_run = open_run
        self._memory = memory
        self._limits = limits
        self._queue: collections.deque[Event] = collections.deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._failure = ""
        self._run: TrackerRun | None = None
        self._has_ended = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def receive(self, event: Event) -> None:
        with self._changed:
            if self._failure:
                raise SinkError(self._failure)
            is_full = len(self._queue) >= self._limits.max_queued and not self._make_room()
            if is_full and isinstance(event, Stepped):
                self.num_dropped += 1
                return
            self._queue.append(event)
            self._changed.notify_all()

    def close(self) -> None:
        """Waits for what is queued, for a bounded time."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(self._limits.close_seconds)
        with self._changed:
            if self._failure:
                raise SinkError(self._failure)
            if self._thread.is_alive():
                left, self._failure = len(self._queue), "closed"
                self._queue.clear()
                raise SinkError(
                    f"{left + 1} events were not delivered within {self._limits.close_seconds:g} s; they are in the "
                    "run's events file"
                )

    def _make_room(self) -> bool:
        """Leaves out the oldest step; whether there was one."""
        for index, queued in enumerate(self._queue):
            if isinstance(queued, Stepped):
                del self._queue[index]
                self.num_dropped += 1
                return True
        return False

    def _work(self) -> None:
        """The thread. However it ends, a tracker that takes nothing more is a failure that the next event tells."""
        failure = "its thread ended unexpectedly"
        try:
            early: list[Event] = []
            while (event := self._next()) is not None:
                if self._run is None and not isinstance(event, Started):
                    early.append(event)
                    continue
                self._deliver(event)
                while early:
                    self._deliver(early.pop(0))
            if self._run is not None and not self._has_ended:
                self._run.end("Failed")
            failure = ""
        except SinkError as e:
            failure = e.message
        finally:
            with self._changed:
                self._failure = failure
                self._queue.clear()

    def _next(self) -> Event | None:
        with self._changed:
            while not self._queue:
                if self._is_closing:
                    return None
                self._changed.wait()
            return self._queue.popleft()

    def _deliver(self, event: Event) -> None:
        pause = self._limits.pause_seconds
        for attempt in range(1, self._limits.attempts + 1):
            try:
                self._hand_over(event)
            except SinkError:
                if attempt == self._limits.attempts:
                    raise
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closing, timeout=pause)
                pause *= 2.0
            else:
                return

    def _hand_over(self, event: Event) -> None:
        if isinstance(event, Started):
            if self._run is None:
                self._run = self._open_run(self._recall() if event.step else "", event.step)
                self._remember(self._run.run_id)
            self._run.parameters(values.parameters(event))
        elif self._run is None:
            raise SinkError(f"the event {type(event).__name__} came before the run was opened")
        elif isinstance(event, Stepped | Evaluated | Saved):
            self._run.metrics(event.step, values.metrics(event))
        elif isinstance(event, Alert):
            self._run.alert(event.step, event.kind, event.message)
        else:
            self._end(self._run, event)

    def _end(self, run: TrackerRun, event: Ended) -> None:
        if self._has_ended:
            return
        dropped = {"dropped_steps": self.num_dropped} if self.num_dropped else {}
        run.summary(event.step, {**values.flatten(event.summary), **dropped, "outcome": event.outcome})
        run.end(event.outcome)
        self._has_ended = True

    def _recall(self) -> str:
        try:
            return str(json.loads(self._memory.read_text(encoding="utf-8"))["run"])
        except (OSError, ValueError, KeyError, TypeError):
            # Without its former name the run is a new one for the tracker; nothing of the training is lost.
            return ""

    def _remember(self, run_id: str) -> None:
        beside = self._memory.with_name(f".{self._memory.name}.{os.getpid()}")
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({"run": run_id}), encoding="utf-8")
            beside.replace(self._memory)
        except OSError as e:
            raise SinkError(f"{self._memory}: cannot be written: {e.strerror}") from e
