"""The store of one machine: a SQLite file in write-ahead-log mode, shared by any number of threads and processes.

SQLite serialises the writers of all processes, and revisions are given out inside its write transaction, so they grow
in commit order and a reader that sees a revision sees all earlier ones. Commits survive the death of any process;
with synchronous="FULL" the loss of power too. How writes are grouped: commits.py; the statements: statements.py;
the schema: migrations.py. Network file systems are not supported: their locks do not hold.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from michelangelo import errors
from michelangelo.storage import commits, connections, keys, preconditions, statements, subscriptions
from michelangelo.storage.store import Event, Page, Record, Write

__all__ = ["SqliteStore"]

_COMPACTED_AT_ONCE = 500
_PAUSE_SECONDS = 0.002


class SqliteStore:
    """A Store in the file `path`, which is made (mode 0600) where there is none; its folder must be there.

    Raises CorruptDatabaseError, NewerSchemaError, or StorageError for a file that cannot be opened. A store does not
    survive a fork: the child gets StorageError and opens its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: connections.Synchronous = "NORMAL",
        busy_timeout_seconds: float = 30.0,
    ) -> None:
        if synchronous not in ("NORMAL", "FULL"):
            raise ValueError(f"synchronous is NORMAL or FULL, not {synchronous!r}")
        self.path = os.path.abspath(path)
        self._process = os.getpid()
        self._closed = False
        self._database = connections.Database(
            self.path, synchronous=synchronous, busy_timeout_seconds=busy_timeout_seconds
        )
        self._subscriptions = subscriptions.Subscriptions(self._newest, self._written, shared=True)
        self._commits = commits.GroupCommit(self._database, self._database.open(), self._subscriptions.committed)
        _open_stores.add(self)

    def get(self, key: str) -> Record | None:
        self._check_usable()
        with self._database.reading() as connection:
            row = connection.execute(statements.GET, (key,)).fetchone()
        return None if row is None else Record(*row)

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
        with self._database.reading() as connection:
            connection.execute(statements.BEGIN_READ)
            newest = self._check_bounds(connection, at)
            wanted = _range(prefix, after) | {"limit": limit or -1, "at": at}
            wanted |= _rarest_first(connection, terms, wanted)
            past = at is not None and at < newest
            select = (statements.list_at if past else statements.list_current)(len(terms))
            records = _records(connection.execute(select, wanted))
            remaining = 0
            if limit and len(records) == limit:
                wanted |= _range(prefix, records[-1].key)
                count = (statements.count_at if past else statements.count_current)(len(terms))
                remaining = int(connection.execute(count, wanted).fetchone()[0])
        return Page(records, newest if at is None else at, remaining)

    def write(self, write: Write) -> Future[Record]:
        self._check_usable()
        preconditions.check_form(write)
        return self._commits.submit(write)

    def events(self, prefix: str, *, after: int, limit: int = 1000) -> Sequence[Event]:
        self._check_usable()
        with self._database.reading() as connection:
            connection.execute(statements.BEGIN_READ)
            self._check_bounds(connection, after)
            wanted = _range(prefix, "") | {"after": after, "limit": limit or -1}
            return [_event(row) for row in connection.execute(statements.EVENTS, wanted)]

    def revision(self) -> int:
        self._check_usable()
        return self._newest()

    def subscribe(self, wake: Callable[[int], None], *, prefix: str = "") -> Callable[[], None]:
        self._check_usable()
        return self._subscriptions.add(wake, prefix)

    def compact(self, before: int) -> None:
        """As the protocol says, in many small transactions; what a killed process left over, the next call forgets."""
        self._check_usable()
        # The floor comes first: no reader takes a log with holes for a whole one.
        with self._commits.transaction() as connection:
            connection.execute(statements.RAISE_FLOOR, {"before": before})
        while self._forget_some():
            # Let the writers of other processes in: SQLite's lock has no queue.
            time.sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        _open_stores.discard(self)
        self._subscriptions.close()
        self._commits.close()
        self._database.close()

    def before_fork(self) -> None:
        """Finish the transaction under way, so that a child does not inherit half of one."""
        self._commits.lock.acquire()

    def after_fork(self) -> None:
        self._commits.lock.release()

    def _newest(self) -> int:
        with self._database.reading() as connection:
            return int(connection.execute(statements.REVISION).fetchone()[0])

    def _written(self, after: int) -> set[str] | None:
        with self._database.reading() as connection:
            connection.execute(statements.BEGIN_READ)
            _, floor = connection.execute(statements.BOUNDS).fetchone()
            if after < floor:
                return None
            return {str(key) for (key,) in connection.execute(statements.WRITTEN, (after,))}

    def _check_usable(self) -> None:
        if self._closed:
            raise errors.StorageError(f"{self.path} was closed: open the store again")
        if os.getpid() != self._process:
            raise errors.StorageError(
                f"{self.path} was opened by process {self._process}, which forked: open the store anew in the child"
            )

    def _check_bounds(self, connection: sqlite3.Connection, revision: int | None) -> int:
        """The newest revision. Raises ExpiredError when `revision` is no longer, or not yet, in the log."""
        newest, floor = connection.execute(statements.BOUNDS).fetchone()
        if revision is not None:
            if revision < floor:
                raise errors.ExpiredError(f"revision {revision} was compacted away (the oldest is {floor}): list again")
            if revision > newest:
                raise errors.ExpiredError(
                    f"revision {revision} is not in this store (the newest is {newest}): list again"
                )
        return int(newest)

    def _forget_some(self) -> bool:
        """Forget what the next few revisions made superfluous; False when everything up to the floor was done."""
        with self._commits.transaction() as connection:
            swept, floor = connection.execute(statements.SWEPT).fetchone()
            span = {"swept": swept, "upto": min(swept + _COMPACTED_AT_ONCE, floor)}
            connection.execute(statements.FORGET_SUPERSEDED, span)
            connection.execute(statements.FORGET_DELETIONS, span)
            connection.execute(statements.UPDATE_SWEPT, {"upto": span["upto"]})
        return bool(span["upto"] < floor)


def _range(prefix: str, after: str) -> dict[str, Any]:
    stop = keys.stop(prefix)
    return {"start": keys.first(prefix, after), "stop": b"" if stop is None else stop}


def _rarest_first(connection: sqlite3.Connection, terms: frozenset[str], wanted: Mapping[str, Any]) -> dict[str, str]:
    """The terms as :t0, :t1, …; SQLite walks the first and looks the others up."""
    ordered = sorted(terms)
    if len(ordered) > 1:
        sizes = {t: connection.execute(statements.TERM_SIZE, {**wanted, "term": t}).fetchone()[0] for t in ordered}
        ordered.sort(key=lambda term: int(sizes[term]))
    return {f"t{number}": term for number, term in enumerate(ordered)}


def _records(rows: Iterable[tuple[str, bytes, int, int]]) -> Sequence[Record]:
    return [Record(*row) for row in rows]


def _event(row: tuple[Any, ...]) -> Event:
    key, value, revision, created, deleted, old_value, old_revision, old_created = row
    previous = None if old_revision is None else Record(key, old_value, old_revision, old_created)
    return Event(Record(key, value, revision, created), bool(deleted), previous)


# --- forks ------------------------------------------------------------------------------------------------
# A connection must neither be used nor closed by a forked child: closing would tidy up side files that the parent works
# with. So a fork waits for the running transaction, and the child keeps what it inherited, untouched, to its end.

_open_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_fork_turn = threading.Lock()
_forking: list[SqliteStore] = []
_inherited: list[SqliteStore] = []


def _before_fork() -> None:
    _fork_turn.acquire()
    for store in sorted(_open_stores, key=id):
        store.before_fork()
        _forking.append(store)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork()
    _fork_turn.release()


def _after_fork_in_child() -> None:
    _inherited.extend(_forking)
    _forking.clear()
    _open_stores.clear()
    _fork_turn.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
