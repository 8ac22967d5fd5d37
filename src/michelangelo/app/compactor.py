"""Compaction of the store's log: what was superseded is forgotten after a while, so that the file does not grow on.

As in a Kubernetes API server, the last five minutes stay: a watch that was away for longer lists again. What is current
is never touched, and so neither is the journal of a run: its TaskRuns are current objects. It runs in servers; runs
without a server compact when they end (`Platform.close`).
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from michelangelo import errors
from michelangelo.storage.store import Store

__all__ = ["Compactor"]

logger = logging.getLogger(__name__)

_KEEP_SECONDS: Final = 300.0
_INTERVAL_SECONDS: Final = 60.0


class Compactor:
    """`start` and `stop` a thread that calls `step` once a minute."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._seen: collections.deque[tuple[float, int]] = collections.deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="michelangelo-compactor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def step(self) -> None:
        """Forget what was superseded before the newest revision that is known to be five minutes old."""
        now = self._clock()
        self._seen.append((now, self._store.revision()))
        old = 0
        while self._seen and self._seen[0][0] <= now - _KEEP_SECONDS:
            old = self._seen.popleft()[1]
        if old:
            self._store.compact(old)

    def _run(self) -> None:
        while True:
            try:
                self.step()
            except errors.StorageError as error:
                logger.warning("the log could not be compacted, the next try is in a minute: %s", error)
            if self._stopping.wait(_INTERVAL_SECONDS):
                return
