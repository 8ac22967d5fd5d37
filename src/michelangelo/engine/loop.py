"""The engine's thread: one queue of calls and one heap of timers, so that what it runs needs no lock.

It knows nothing of steps or runs. A call that raises ends the loop, and `ended` gets the exception: whoever waits for
the engine is told instead of waiting for ever.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Loop", "Timer"]


class Timer:
    """A call that is due at an instant of the monotonic clock, until it is cancelled."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """`call` from any thread; `later` from calls of the loop only."""

    def __init__(self, name: str, ended: Callable[[BaseException | None], None]) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._ended = ended
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Have the loop's thread call `function` soon. After the loop ended nothing happens."""
        self._calls.put((function, args))

    def later(self, delay_seconds: float, function: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + max(0.0, delay_seconds), function)
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def close(self) -> None:
        """End the loop after the calls that are queued, and wait for it."""
        self._calls.put(None)
        if threading.current_thread() is not self._thread and self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._next():
                pass
        finally:
            self._ended(sys.exc_info()[1])

    def _next(self) -> bool:
        timeout = None
        while self._timers:
            due, _, timer = self._timers[0]
            timeout = due - time.monotonic()
            if timer.call is not None and timeout > 0:
                break
            heapq.heappop(self._timers)
            timeout = None
            if timer.call is not None:
                timer.call()
        try:
            item = self._calls.get(timeout=timeout)
        except queue.Empty:
            return True
        if item is None:
            return False
        function, args = item
        function(*args)
        return True
