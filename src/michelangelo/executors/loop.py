"""An event loop for one thread: descriptors, timers, and commands posted by other threads. It knows no attempt."""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import os
import selectors
import time
from collections.abc import Callable

__all__ = ["Loop"]


class Loop:
    """All methods but `post` are for the thread of `run`."""

    def __init__(self) -> None:
        self._commands: collections.deque[Callable[[], None]] = collections.deque()
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._run_commands)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = itertools.count()
        self._stopping = False

    def post(self, command: Callable[[], None]) -> None:
        """Have `command` called by the thread of `run`; from any thread, until `close`."""
        self._commands.append(command)
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._wake_out, b"\0")

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, events in self._selector.select(timeout):
                key.data(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self._selector.close()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, `seconds` from now. It cannot be taken back: it looks whether it is still wanted."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._counter), callback))

    def listen(self, fd: int, callback: Callable[[int], None], events: int = selectors.EVENT_READ) -> None:
        """Call `callback` with the events whenever there are some on `fd`. Of a batch that was taken together some may
        still come after `forget`."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def forget(self, fd: int) -> None:
        """Before `fd` is closed; one that is not listened to is no error."""
        if fd >= 0 and fd in self._selector.get_map():
            self._selector.unregister(fd)

    def _run_commands(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_in, 4096)
        while self._commands and not self._stopping:
            self._commands.popleft()()
