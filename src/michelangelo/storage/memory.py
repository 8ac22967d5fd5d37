"""The twin of the SQLite store, in plain Python: for tests, and for runs that keep nothing.

It is the readable statement of what a store does, and passes the same conformance suite. It persists nothing, and one
process only can see it.
"""

from __future__ import annotations

import bisect
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from michelangelo import errors
from michelangelo.storage import keys, preconditions, subscriptions
from michelangelo.storage.store import Event, Page, Record, Write

__all__ = ["MemoryStore"]


@dataclass(frozen=True, slots=True)
class _Row:
    record: Record
    previous: int
    deleted: bool
    terms: frozenset[str]


class MemoryStore:
    """A Store that lives as long as this object. A forked child gets StorageError: its copy would go astray."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log: dict[int, _Row] = {}
        self._revisions: list[int] = []
        """The revisions of the log, ascending."""
        self._current: dict[str, int] = {}
        self._keys: list[str] = []
        """The living keys, in order."""
        self._floor = 0
        self._process = os.getpid()
        self._closed = False
        self._subscriptions = subscriptions.Subscriptions(self._newest, self._written, shared=False)

    def get(self, key: str) -> Record | None:
        self._check_usable()
        with self._lock:
            revision = self._current.get(key)
            return None if revision is None else self._log[revision].record

    def list(
        self,
        prefix: str,
        *,
        after: str = "",
        limit: int = 0,
        at: int | None = None,
        terms: frozenset[str] = frozenset(),
    ) -> Page:
        self._check_usable()
        with self._lock:
            self._check_bounds(at)
            revision = self._newest() if at is None else at
            rows = self._rows_at(revision, keys.first(prefix, after), keys.stop(prefix))
            records = [row.record for row in rows if terms <= row.terms]
        return Page(records[: limit or None], revision, max(0, len(records) - limit) if limit else 0)

    def write(self, write: Write) -> Future[Record]:
        self._check_usable()
        preconditions.check_form(write)
        future: Future[Record] = Future()
        try:
            with self._lock:
                record = self._apply(write)
        except errors.ApiError as e:
            future.set_exception(e)
        else:
            future.set_result(record)
            self._subscriptions.committed()
        return future

    def events(self, prefix: str, *, after: int, limit: int = 1000) -> Sequence[Event]:
        self._check_usable()
        found: list[Event] = []
        with self._lock:
            self._check_bounds(after)
            for row in self._rows_after(after):
                if row.record.key.startswith(prefix):
                    previous = self._log.get(row.previous)
                    found.append(Event(row.record, row.deleted, previous.record if previous else None))
                    if len(found) == limit:
                        break
        return found

    def revision(self) -> int:
        self._check_usable()
        return self._newest()

    def subscribe(self, wake: Callable[[int], None], *, prefix: str = "") -> Callable[[], None]:
        self._check_usable()
        return self._subscriptions.add(wake, prefix)

    def compact(self, before: int) -> None:
        self._check_usable()
        with self._lock:
            floor = min(before, self._newest())
            if floor <= self._floor:
                return
            self._floor = floor
            superseded = {row.previous for revision, row in self._log.items() if revision <= floor}
            self._log = {
                revision: row
                for revision, row in self._log.items()
                if revision not in superseded and not (row.deleted and revision < floor)
            }
            self._revisions = list(self._log)

    def close(self) -> None:
        if os.getpid() == self._process:
            self._closed = True
            self._subscriptions.close()

    def _newest(self) -> int:
        return self._revisions[-1] if self._revisions else 0

    def _written(self, after: int) -> set[str] | None:
        with self._lock:
            return None if after < self._floor else {row.record.key for row in self._rows_after(after)}

    def _check_usable(self) -> None:
        if self._closed:
            raise errors.StorageError("the store in memory was closed, its contents are gone: make a new one")
        if os.getpid() != self._process:
            raise errors.StorageError(f"the store in memory belongs to process {self._process}, which forked")

    def _check_bounds(self, revision: int | None) -> None:
        if revision is None:
            return
        if revision < self._floor:
            raise errors.ExpiredError(
                f"revision {revision} was compacted away (the oldest is {self._floor}): list again"
            )
        if revision > self._newest():
            raise errors.ExpiredError(
                f"revision {revision} is not in this store (the newest is {self._newest()}): list again"
            )

    def _rows_after(self, revision: int) -> Iterator[_Row]:
        for index in range(bisect.bisect_right(self._revisions, revision), len(self._revisions)):
            yield self._log[self._revisions[index]]

    def _rows_at(self, revision: int, start: str, stop: str | None) -> Sequence[_Row]:
        """The state of the range at `revision`, by taking back what was written since, newest first."""
        first = bisect.bisect_left(self._keys, start)
        last = len(self._keys) if stop is None else bisect.bisect_left(self._keys, stop)
        state = {key: self._current[key] for key in self._keys[first:last]}
        for row in reversed(list(self._rows_after(revision))):
            key = row.record.key
            if key < start or (stop is not None and key >= stop):
                continue
            if row.previous:
                state[key] = row.previous
            else:
                state.pop(key, None)
        return [self._log[state[key]] for key in sorted(state)]

    def _apply(self, write: Write) -> Record:
        key, previous = write.key, self._current.get(write.key)
        preconditions.check_state(write, previous)
        revision = self._newest() + 1
        if write.value is None:
            last = self._log[self._current.pop(key)].record
            self._keys.pop(bisect.bisect_left(self._keys, key))
            record = Record(key, last.value, revision, last.created)
        else:
            created = revision if previous is None else self._log[previous].record.created
            record = Record(key, write.value, revision, created)
            if previous is None:
                bisect.insort(self._keys, key)
            self._current[key] = revision
        self._log[revision] = _Row(record, previous or 0, write.value is None, write.terms)
        self._revisions.append(revision)
        return record
