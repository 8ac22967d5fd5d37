"""SQLite connections: opening the file, keeping idle readers, and saying in our words what SQLite complains about.

The file is opened and closed by SQLite only: on POSIX systems a second open and close by the same process would drop
the locks that its other connections hold. This module runs no statement on the tables but the migrations.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Final, Literal

from michelangelo import errors
from michelangelo.storage import migrations, statements

__all__ = ["FAILURES", "Database", "Synchronous"]

Synchronous = Literal["NORMAL", "FULL"]

_IDLE_READERS = 8
_CACHE_KIBIBYTES = 8192
_LOG_BYTES_KEPT = 16 << 20
_RETRY_SECONDS = 0.005
FAILURES: Final = (sqlite3.Error, UnicodeDecodeError)
"""The second one where SQLite's message quotes a damaged file's schema, which is no text any more."""
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""SQLITE_ERROR stands for a table or column that is not there: our statements are right for the schema that we made."""
_LEAST_BYTES = 512
"""SQLite takes a smaller file for an empty one, and would overwrite it."""
_creating = threading.Lock()
"""Held while an empty file is made, so that no thread has it open through SQLite when our descriptor is closed."""


class Database:
    """One SQLite file: makes connections to it. Its methods may be called from any thread."""

    def __init__(self, path: str, *, synchronous: Synchronous, busy_timeout_seconds: float) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout_seconds
        self._idle: collections.deque[sqlite3.Connection] = collections.deque()
        self._closed = False

    def open(self) -> sqlite3.Connection:
        """Make the file where there is none, bring its schema up to date, and return a connection for writing.

        Raises StorageError and its subclasses; then nothing was changed, and no connection is left open.
        """
        _create(self.path)
        self._check()
        connection = self.writer()
        try:
            if migrations.pending(connection, self.path):
                self._use_write_ahead_log(connection)
                migrations.migrate(connection, self.path)
        except FAILURES as e:
            connection.close()
            raise self.failure(e) from e
        except errors.StorageError:
            connection.close()
            raise
        return connection

    def _check(self) -> None:
        """Refuse a file that is not ours before anything could write to it: the last connection that is closed puts
        what an interrupted program left beside a file into it, but not one that can only read."""
        try:
            connection = self._connect("ro")
        except errors.CorruptDatabaseError:
            raise
        except errors.StorageError:
            return  # It takes a writer to undo what a killed process began, and to say what else is wrong.
        try:
            migrations.pending(connection, self.path)
        except FAILURES as e:
            failure = self.failure(e)
            if isinstance(failure, errors.CorruptDatabaseError):
                raise failure from e
        finally:
            connection.close()

    def writer(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES_KEPT}")
        except FAILURES as e:
            connection.close()
            raise self.failure(e) from e
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that no other thread uses meanwhile. Raises StorageError for what SQLite raises inside."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        except FAILURES as e:
            raise self.failure(e) from e
        finally:
            if connection.in_transaction:
                with contextlib.suppress(*FAILURES):
                    connection.execute(statements.ROLLBACK)
            self._give_back(connection)

    def close(self) -> None:
        """Close the idle readers now, and each busy one when it is given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def failure(self, error: sqlite3.Error | UnicodeDecodeError) -> errors.StorageError:
        """What `error` means, in our words."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED or isinstance(error, UnicodeDecodeError):
            return errors.CorruptDatabaseError(
                f"{self.path} is damaged, or no database of michelangelo ({error}); nothing was changed: "
                f"move it away together with {self.path}-wal and start with an empty one, or restore a backup"
            )
        advice = {
            sqlite3.SQLITE_FULL: "the disk is full: free some space and try again",
            sqlite3.SQLITE_IOERR: "the disk refused to read or write: it may be full, over a quota, or failing",
            sqlite3.SQLITE_BUSY: f"another process held its lock for {self._busy_timeout:g} s: is it stopped or stuck?",
            sqlite3.SQLITE_READONLY: "it is read-only: make the file and its folder writable for this user",
            sqlite3.SQLITE_PERM: "permission denied: make the file and its folder accessible for this user",
            sqlite3.SQLITE_CANTOPEN: "it cannot be opened: is it there, and accessible for this user?",
        }.get(code, "nothing was changed")
        return errors.StorageError(f"{self.path}: {error}; {advice}")

    def _connect(self, mode: Literal["ro", "rw"] = "rw") -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                f"file:{_quoted(self.path)}?mode={mode}",
                uri=True,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
            )
        except FAILURES as e:
            raise self.failure(e) from e
        try:
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        except FAILURES as e:
            connection.close()
            raise self.failure(e) from e
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if len(self._idle) < _IDLE_READERS:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:
            self.close()

    def _use_write_ahead_log(self, connection: sqlite3.Connection) -> None:
        """The mode stays in the file. SQLite does not wait for other processes here, so we do."""
        deadline = time.monotonic() + self._busy_timeout
        while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as e:
                if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)


def _create(path: str) -> None:
    """Make an empty file that only its owner can read; SQLite gives its side files the same mode."""
    with _creating:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            if os.path.isdir(path):
                raise errors.StorageError(f"{path} is a folder; the database is a file") from None
            if 0 < os.path.getsize(path) < _LEAST_BYTES:
                raise errors.CorruptDatabaseError(
                    f"{path} is no database; nothing was changed: move it away, or set MA_HOME to another folder"
                ) from None
        except OSError as e:
            raise errors.StorageError(f"cannot make the database {path}: {e.strerror}; is its folder there?") from e


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
