"""Who wants to know of new revisions, and the one thread of a store that tells them.

The thread starts with the first subscriber. A commit of this process wakes it at once; commits of other processes it
finds by asking for the newest revision, every 5 ms while there is news and every 50 ms at rest (some 10 µs each).
It reads the keys that were written once for all subscribers, and leaves those alone that they do not concern: a hundred
watches of quiet kinds cost a busy one nothing. Commits within 5 ms of each other are told as one.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Collection

from michelangelo import errors

__all__ = ["Subscriptions"]

_BUSY_SECONDS = 0.005
_REST_SECONDS = 0.05
_MERGE_SECONDS = 0.005
_ALL_AFTER = 1000
"""Revisions after which everybody is told, concerned or not, so that no reader falls behind the log's compaction."""


class Subscriptions:
    """`newest` reads the newest revision, `written` the keys written after a revision (None: not known any more);
    `shared` says whether other processes may commit too."""

    def __init__(
        self, newest: Callable[[], int], written: Callable[[int], Collection[str] | None], *, shared: bool
    ) -> None:
        self._newest = newest
        self._written = written
        self._shared = shared
        self._wakes: dict[int, tuple[str, Callable[[int], None]]] = {}
        self._numbers = itertools.count()
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._signalled = False
        self._told = 0
        self._all_told = 0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closing = threading.Event()

    def add(self, wake: Callable[[int], None], prefix: str) -> Callable[[], None]:
        """Call `wake` for every commit under `prefix` from now on. The returned function ends that; one call may be
        under way then."""
        number = next(self._numbers)
        with self._starting:
            if self._thread is None:
                self._told = self._all_told = self._newest()
                self._thread = threading.Thread(target=self._run, name="michelangelo-store-wake", daemon=True)
                self._thread.start()
            self._wakes[number] = (prefix, wake)
        # The thread may just be waiting for long: let it look how often it has to ask now.
        self._signals.put(True)

        def stop() -> None:
            self._wakes.pop(number, None)

        return stop

    def committed(self) -> None:
        """This process committed something."""
        if self._wakes and not self._signalled:
            self._signalled = True
            self._signals.put(True)

    def close(self) -> None:
        with self._starting:
            self._wakes.clear()
            self._closing.set()
            if self._thread is not None and self._thread is not threading.current_thread():
                self._signals.put(False)
                self._thread.join()

    def _run(self) -> None:
        pause = _BUSY_SECONDS
        while self._wait(pause):
            # Cleared before the revision is read: a later commit signals again.
            self._signalled = False
            if self._tell():
                pause = _BUSY_SECONDS
                self._closing.wait(_MERGE_SECONDS)
            else:
                pause = min(2 * pause, _REST_SECONDS)

    def _wait(self, pause: float) -> bool:
        """Until a signal, or for `pause` where somebody else may commit unheard. False: the store is closing."""
        try:
            return self._signals.get(timeout=pause if self._shared and self._wakes else None)
        except queue.Empty:
            return True

    def _tell(self) -> bool:
        try:
            newest = self._newest()
            if newest <= self._told:
                return False
            keys = None if newest - self._all_told >= _ALL_AFTER else self._written(self._told)
        except errors.StorageError:
            return False  # Whoever reads the log meets the same error, in a thread that can act on it.
        self._told = newest
        if keys is None:
            self._all_told = newest
        for prefix, wake in list(self._wakes.values()):
            if keys is None or any(key.startswith(prefix) for key in keys):
                wake(newest)
        return True
