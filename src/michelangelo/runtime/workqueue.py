"""The work queue between events and workers: each key at most once in it, and never with two workers at the same time.

A key added while a worker has it is handed out again after `done`, behind the keys that came before: no key starves
another, and however often an object changes, one pass over its newest state is enough. It knows nothing of what keys
mean."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Backoff", "WorkQueue"]

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after the n-th failure in a row: doubling from `first_seconds` to `limit_seconds`.

    A share `jitter` of each delay is random, so that what failed together does not come back together.
    """

    first_seconds: float = 0.05
    limit_seconds: float = 60.0
    jitter: float = 0.2
    draw: Callable[[], float] = random.random

    def delay_seconds(self, failures: int) -> float:
        """`failures` counts from 1."""
        # The exponent is bounded: a key that failed a thousand times must not overflow a float.
        full = min(self.limit_seconds, self.first_seconds * 2.0 ** min(failures - 1, 60))
        return full * (1.0 - self.jitter * self.draw())


class WorkQueue(Generic[K]):
    """Thread safe. `clock` gives seconds that never go back; delays are judged by it."""

    def __init__(self, *, backoff: Backoff | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._queued: set[K] = set()
        """In `_ready`, or waiting for `done` of the worker that has the key now."""
        self._running: set[K] = set()
        self._due: dict[K, float] = {}
        """The earliest instant that was asked for each delayed key; the heap may hold later, void entries."""
        self._delayed: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._failures: dict[K, int] = {}
        self._shut_down = False

    def add(self, key: K) -> None:
        """Hand `key` to a worker as soon as one is free. Ignored after `shutdown`."""
        with self._changed:
            self._add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Add `key` in `seconds`; of several calls the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        with self._changed:
            due = self._clock() + seconds
            if self._shut_down or self._due.get(key, due + 1) <= due:
                return
            self._due[key] = due
            heapq.heappush(self._delayed, (due, next(self._order), key))
            self._changed.notify()

    def add_rate_limited(self, key: K) -> float:
        """Add `key` after a delay that grows with its failures since `forget`; returns the delay in seconds."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = self._backoff.delay_seconds(failures)
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: K) -> None:
        """The key went well: its next failure is the first again."""
        with self._changed:
            self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Calls of `add_rate_limited` since `forget`."""
        with self._changed:
            return self._failures.get(key, 0)

    def get(self, timeout_seconds: float | None = None) -> K | None:
        """The next key, to be given back by `done`; None after `shutdown`, or when `timeout_seconds` passed (real
        time)."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                next_due = self._release_due()
                if self._shut_down:
                    return None
                if self._ready:
                    key = self._ready.popleft()
                    self._queued.discard(key)
                    self._running.add(key)
                    return key
                waits = [] if next_due is None else [max(next_due - self._clock(), 0.0)]
                if deadline is not None:
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        return None
                    waits.append(remaining)
                self._changed.wait(min(waits, default=None))

    def done(self, key: K) -> None:
        """The worker that got `key` has finished with it."""
        with self._changed:
            self._running.discard(key)
            if key in self._queued:
                self._ready.append(key)
            self._changed.notify_all()

    def shutdown(self) -> None:
        """Hand out nothing more: every `get` returns None. Keys that workers have are theirs until `done`."""
        with self._changed:
            self._shut_down = True
            self._changed.notify_all()

    def wait_idle(self, timeout_seconds: float | None = None) -> bool:
        """Wait until no worker has a key; False when `timeout_seconds` passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_seconds)

    def __len__(self) -> int:
        """Keys that wait for a worker now, delayed ones not counted."""
        with self._changed:
            self._release_due()
            return len(self._queued)

    def _add(self, key: K) -> None:
        if self._shut_down or key in self._queued:
            return
        self._queued.add(key)
        if key not in self._running:
            self._ready.append(key)
            self._changed.notify()

    def _release_due(self) -> float | None:
        """Add the keys whose time has come; returns when the next one's comes."""
        now = self._clock()
        while self._delayed:
            due, _, key = self._delayed[0]
            if self._due.get(key) != due:
                heapq.heappop(self._delayed)
            elif due <= now:
                heapq.heappop(self._delayed)
                del self._due[key]
                self._add(key)
            else:
                return due
        return None
