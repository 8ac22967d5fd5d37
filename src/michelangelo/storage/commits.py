"""Group commit: many threads queue writes, one of them commits what is queued, in one transaction.

Whoever waits for a result commits the queue itself if nobody else is at it, so a lone write needs no change of threads
(0.05 ms instead of 0.13 ms). A thread of the store is woken with every write as well: it commits what nobody waits for,
such as the writes of an event loop. Futures are resolved outside the lock: a callback may write again.

Refusals are per write; a failure of SQLite fails the whole batch and leaves nothing of it. This module reads
nothing but what a write has to know.
"""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from michelangelo import errors
from michelangelo.storage import connections, preconditions, statements
from michelangelo.storage.store import Record, Write

__all__ = ["GroupCommit"]

_LARGEST_BATCH = 500
_Outcome = Record | errors.MichelangeloError
_INTERRUPTED = errors.StorageError("the commit was interrupted: the write may or may not be there, read it again")


class GroupCommit:
    """The only writer of a store in this process. `committed` is called after each batch, outside the lock."""

    def __init__(
        self, database: connections.Database, connection: sqlite3.Connection, committed: Callable[[], None]
    ) -> None:
        self.lock = threading.Lock()
        """Held during every transaction; a fork waits for it."""
        self._database = database
        self._connection: sqlite3.Connection | None = connection
        self._committed = committed
        self._queue: collections.deque[_Pending] = collections.deque()
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._woken = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    def submit(self, write: Write) -> Future[Record]:
        pending = _Pending(write, self)
        self._queue.append(pending)
        if self._closed:
            self.commit_queued()
        elif not self._woken:
            self._woken = True
            if self._thread is None:
                self._start()
            self._wakes.put(True)
        return pending

    def commit_queued(self, unless: Callable[[], bool] = lambda: False) -> None:
        """Commit one batch in this thread, when the lock is free and `unless()` says no."""
        batch: list[_Pending] = []
        try:
            with self.lock:
                if not unless():
                    self._take(batch)
                    self._commit(batch)
        finally:
            for pending in batch:
                pending.resolve()
        if batch:
            self._committed()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction between two batches. Raises StorageError; then nothing of it was written."""
        with self.lock:
            try:
                with self._transaction() as connection:
                    yield connection
            except connections.FAILURES as e:
                raise self._database.failure(e) from e

    def close(self) -> None:
        """Commit what is queued, then let go of the file."""
        self._closed = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._wakes.put(False)
            self._thread.join()
        while self._queue:
            self.commit_queued()
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        while self._queue:
            self.commit_queued()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="michelangelo-store-commit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._wakes.get():
            # Cleared before the queue is read: a write that is queued later wakes again.
            self._woken = False
            while self._queue:
                self.commit_queued()

    def _take(self, batch: list[_Pending]) -> None:
        while self._queue and len(batch) < _LARGEST_BATCH:
            batch.append(self._queue[0])
            self._queue.popleft()

    def _commit(self, batch: list[_Pending]) -> None:
        """One transaction; sets the outcome of each of `batch`."""
        wanted = [pending for pending in batch if pending.set_running_or_notify_cancel()]
        if not wanted:
            return
        outcomes: list[_Outcome] = []
        try:
            with self._transaction() as connection:
                revision = int(connection.execute(statements.REVISION).fetchone()[0])
                for pending in wanted:
                    try:
                        record = _apply(connection, pending.write, revision + 1)
                    except errors.ApiError as e:
                        outcomes.append(e)
                    else:
                        outcomes.append(record)
                        revision = record.revision
        except connections.FAILURES as e:
            outcomes = [self._database.failure(e) for _ in wanted]
        except errors.StorageError as e:
            outcomes = [errors.StorageError(e.message) for _ in wanted]
        for pending, outcome in zip(wanted, outcomes, strict=True):
            pending.outcome = outcome

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """To be used under the lock. A connection that cannot roll back is replaced by a new one."""
        if self._connection is None:
            if self._closed:
                raise errors.StorageError(f"{self._database.path} was closed: open the store again")
            self._connection = self._database.writer()
        connection = self._connection
        try:
            connection.execute(statements.BEGIN_WRITE)
            yield connection
            connection.execute(statements.COMMIT)
        finally:
            if connection.in_transaction:
                try:
                    connection.execute(statements.ROLLBACK)
                except connections.FAILURES:
                    self._connection = None
                    connection.close()


class _Pending(Future[Record]):
    """A queued write. Waiting for it commits the queue, unless another thread is just doing so."""

    def __init__(self, write: Write, commits: GroupCommit) -> None:
        super().__init__()
        self.write = write
        self.outcome: _Outcome = _INTERRUPTED
        self._commits = commits

    def result(self, timeout: float | None = None) -> Record:
        self._help(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._help(timeout)
        return super().exception(timeout)

    def resolve(self) -> None:
        if self.cancelled():
            return
        if isinstance(self.outcome, Record):
            self.set_result(self.outcome)
        else:
            self.set_exception(self.outcome)

    def _help(self, timeout: float | None) -> None:
        # With a timeout the commit is left to the store's thread: a commit cannot be interrupted.
        if timeout is None and not self.done():
            self._commits.commit_queued(unless=self._is_taken)

    def _is_taken(self) -> bool:
        return self.running() or self.done()


def _apply(connection: sqlite3.Connection, write: Write, revision: int) -> Record:
    """Write one row of the log and what is derived from it. Raises ApiError before anything is changed."""
    key = write.key
    state = connection.execute(statements.STATE, (key,)).fetchone()
    preconditions.check_state(write, None if state is None else state[0])
    if write.value is None:
        return _delete(connection, key, revision, state)
    previous, created, old_terms = state or (0, revision, "[]")
    terms = json.dumps(sorted(write.terms)) if write.terms else "[]"
    connection.execute(statements.INSERT_LOG, (revision, key, created, previous, 0, terms, write.value))
    connection.execute(statements.UPDATE_CURRENT if state else statements.INSERT_CURRENT, (revision, key))
    if terms != old_terms:
        _index(connection, key, frozenset(json.loads(old_terms)), write.terms)
    return Record(key, write.value, revision, created)


def _delete(connection: sqlite3.Connection, key: str, revision: int, state: tuple[int, int, str]) -> Record:
    previous, created, old_terms = state
    (value,) = connection.execute(statements.VALUE, (previous,)).fetchone()
    connection.execute(statements.INSERT_LOG, (revision, key, created, previous, 1, "[]", value))
    connection.execute(statements.DELETE_CURRENT, (key,))
    _index(connection, key, frozenset(json.loads(old_terms)), frozenset())
    return Record(key, value, revision, created)


def _index(connection: sqlite3.Connection, key: str, old: frozenset[str], new: frozenset[str]) -> None:
    for term in old - new:
        connection.execute(statements.DELETE_TERM, (term, key))
    for term in new - old:
        connection.execute(statements.INSERT_TERM, (term, key))
