"""The memory twin of the journal: for tests of the driver, and the model that the conformance suite holds the real one
to.

A `MemoryLog` outlives its drivers, as the objects of a run do; each driver opens a `MemoryJournal` on it. It keeps the
fences of the real journal exactly: a version per entry that taking over bumps. Nothing here survives the process.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

from michelangelo import errors
from michelangelo.engine.journal import Entry, EntryState

__all__ = ["MemoryJournal", "MemoryLog"]


class MemoryLog:
    """The entries of one run with a version each."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: dict[tuple[str, int], Entry] = {}
        self.versions: dict[tuple[str, int], int] = {}

    def put(self, entry: Entry) -> int:
        """Write under the lock; returns the new version."""
        key = (entry.step, entry.attempt)
        self.entries[key] = entry
        self.versions[key] = self.versions.get(key, 0) + 1
        return self.versions[key]


class MemoryJournal:
    """`engine.journal.Journal` over a `MemoryLog`. `driver` is the identity that entries are written with."""

    def __init__(self, log: MemoryLog, *, driver: str) -> None:
        self._log = log
        self._driver = driver
        self._held: dict[tuple[str, int], int] = {}

    def load(self) -> Sequence[Entry]:
        with self._log.lock:
            for key, entry in self._log.entries.items():
                if entry.state is EntryState.RUNNING:
                    self._held[key] = self._log.put(dataclasses.replace(entry, driver=self._driver))
            return sorted(self._log.entries.values(), key=lambda entry: (entry.step, entry.attempt))

    def start(self, entry: Entry) -> None:
        self._create(entry)

    def end(self, entry: Entry) -> None:
        key = (entry.step, entry.attempt)
        if key not in self._held:
            self._create(entry)
            return
        with self._log.lock:
            if self._log.versions[key] != self._held[key]:
                raise errors.LeaseLostError(f"step {entry.step} was taken over by {self._log.entries[key].driver}")
            self._held[key] = self._log.put(entry)

    def _create(self, entry: Entry) -> None:
        key = (entry.step, entry.attempt)
        with self._log.lock:
            if key in self._log.entries:
                driver = self._log.entries[key].driver
                raise errors.LeaseLostError(f"attempt {entry.attempt} of step {entry.step} was started by {driver}")
            self._held[key] = self._log.put(entry)
