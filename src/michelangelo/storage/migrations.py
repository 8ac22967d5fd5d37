"""The schema of the SQLite store and its history: one function per migration, applied in order, each in a transaction.

A migration that was released is never edited; a change is a new one at the end of MIGRATIONS. The table `migration`
says which were applied. Two processes that open one file at once take turns, so each migration runs once.
This module opens no file and translates no error of SQLite.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from michelangelo import errors

__all__ = ["APPLICATION_ID", "MIGRATIONS", "Migration", "m001_log", "migrate", "migration", "pending"]

APPLICATION_ID = 0x4D6C616F
"""Marks a SQLite file as ours ("Mlao"); `file(1)` shows it."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    apply: Callable[[sqlite3.Connection], None]


MIGRATIONS: list[Migration] = []


def migration(function: Callable[[sqlite3.Connection], None]) -> Callable[[sqlite3.Connection], None]:
    """Register `m<number>_<what it does>`; numbers have no gap."""
    number = int(function.__name__[1:4])
    if number != len(MIGRATIONS) + 1:
        raise ValueError(f"migration {function.__name__} should have number {len(MIGRATIONS) + 1:03d}")
    MIGRATIONS.append(Migration(number, function.__name__, function))
    return function


@migration
def m001_log(connection: sqlite3.Connection) -> None:
    """The log and what is derived from it. `previous` is the revision that a row replaced, 0 for none; `terms` is a
    sorted JSON array; a deletion keeps the last value, so that its event can be told after a compaction."""
    connection.execute(
        """
        CREATE TABLE log (
          revision INTEGER PRIMARY KEY,
          key      TEXT NOT NULL,
          created  INTEGER NOT NULL,
          previous INTEGER NOT NULL,
          deleted  INTEGER NOT NULL,
          terms    TEXT NOT NULL,
          value    BLOB NOT NULL
        )
        """
    )
    connection.execute("CREATE TABLE current (key TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE term (term TEXT, key TEXT, PRIMARY KEY (term, key)) WITHOUT ROWID")
    connection.execute("CREATE TABLE compaction (floor INTEGER NOT NULL, swept INTEGER NOT NULL)")
    connection.execute("INSERT INTO compaction (floor, swept) VALUES (0, 0)")


def migrate(connection: sqlite3.Connection, path: str, *, known: Sequence[Migration] = MIGRATIONS) -> None:
    """Apply those of `known` that `pending` tells.

    Raises what `pending` raises. A migration that fails leaves the file as the one before it made it.
    """
    while pending(connection, path, known=known):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Under the write lock look again, for another process may have been faster.
            for step in pending(connection, path, known=known)[:1]:
                _apply(connection, step)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def pending(
    connection: sqlite3.Connection, path: str, *, known: Sequence[Migration] = MIGRATIONS
) -> Sequence[Migration]:
    """The migrations that this file still lacks, in order. Changes nothing.

    Raises NewerSchemaError, CorruptDatabaseError (a file of another program), sqlite3.Error.
    """
    applied = _applied(connection, path)
    if applied > len(known):
        raise errors.NewerSchemaError(
            f"{path} was written by a newer version of michelangelo (schema {applied}, this program knows "
            f"{len(known)}): upgrade it (pip install --upgrade michelangelo-oss), or set MA_HOME to another folder"
        )
    return known[applied:]


def _applied(connection: sqlite3.Connection, path: str) -> int:
    # In this order: another process may make the schema in between, its tables and its mark at once.
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
        return int(connection.execute("SELECT coalesce(max(number), 0) FROM migration").fetchone()[0])
    if not empty:
        raise errors.CorruptDatabaseError(
            f"{path} is a database of another program; nothing was changed: move it away, or set MA_HOME to another "
            "folder"
        )
    return 0


def _apply(connection: sqlite3.Connection, step: Migration) -> None:
    if step.number == 1:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("CREATE TABLE migration (number INTEGER PRIMARY KEY, name TEXT, applied_at REAL)")
    step.apply(connection)
    row = (step.number, step.name, time.time())
    connection.execute("INSERT INTO migration (number, name, applied_at) VALUES (?, ?, ?)", row)
