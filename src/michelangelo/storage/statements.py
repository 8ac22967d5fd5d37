"""Every SQL statement that reads or writes the log, in one place. The tables themselves are made in migrations.py.

Three tables carry the model: `log` has one row per revision, `current` points from each living key to its newest row,
`term` has one row per index term of a living key. Everything but `log` can be derived from it.

The range of keys in a statement is always `:start <= key < :stop`; a `:stop` that is a blob means no upper end, because
SQLite sorts every blob after every text. This module runs nothing.
"""

from __future__ import annotations

import functools

__all__ = [
    "BEGIN_READ",
    "BEGIN_WRITE",
    "BOUNDS",
    "COMMIT",
    "DELETE_CURRENT",
    "DELETE_TERM",
    "EVENTS",
    "FORGET_DELETIONS",
    "FORGET_SUPERSEDED",
    "GET",
    "INSERT_CURRENT",
    "INSERT_LOG",
    "INSERT_TERM",
    "RAISE_FLOOR",
    "REVISION",
    "ROLLBACK",
    "STATE",
    "SWEPT",
    "TERM_SIZE",
    "UPDATE_CURRENT",
    "UPDATE_SWEPT",
    "VALUE",
    "WRITTEN",
    "count_at",
    "count_current",
    "list_at",
    "list_current",
]

BEGIN_READ = "BEGIN"
BEGIN_WRITE = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

# --- reading ----------------------------------------------------------------------------------------------

REVISION = "SELECT coalesce(max(revision), 0) FROM log"
"""The newest row is never removed by a compaction, so its number is the newest revision."""

BOUNDS = "SELECT (SELECT coalesce(max(revision), 0) FROM log), floor FROM compaction"

GET = """
SELECT l.key, l.value, l.revision, l.created
FROM current AS c CROSS JOIN log AS l ON l.revision = c.revision
WHERE c.key = ?
"""

EVENTS = """
SELECT l.key, l.value, l.revision, l.created, l.deleted, p.value, p.revision, p.created
FROM log AS l LEFT JOIN log AS p ON p.revision = l.previous
WHERE l.revision > :after AND l.key >= :start AND l.key < :stop
ORDER BY l.revision LIMIT :limit
"""

WRITTEN = "SELECT DISTINCT key FROM log WHERE revision > ?"

TERM_SIZE = """
SELECT count(*) FROM (
  SELECT 1 FROM term WHERE term = :term AND key >= :start AND key < :stop LIMIT 5000
)
"""


@functools.cache
def list_current(terms: int) -> str:
    """The living keys of a range that carry `terms` many terms, named :t0, :t1, …"""
    return f"""
    SELECT {_key(terms)}, l.value, l.revision, l.created
    FROM {_living(terms)} CROSS JOIN log AS l ON l.revision = c.revision
    WHERE {_in_range(terms)}
    ORDER BY {_key(terms)} LIMIT :limit
    """


@functools.cache
def count_current(terms: int) -> str:
    """Terms are those of living keys, so that their index is enough to count them."""
    tables = [f"term AS t{n}" for n in range(terms)] or ["current AS c"]
    return f"SELECT count(*) FROM {' CROSS JOIN '.join(tables)} WHERE {_in_range(terms)}"


@functools.cache
def list_at(terms: int) -> str:
    """The state of revision :at: the living keys not written since, and for each key written since what the first such
    write replaced (nothing where it created the key). Both halves come in key order, so a page is not sorted."""
    return f"""
    SELECT {_key(terms)}, l.value, l.revision, l.created
    FROM {_living(terms)} CROSS JOIN log AS l ON l.revision = c.revision
    WHERE {_in_range(terms)} AND c.revision <= :at
    UNION ALL
    SELECT l.key, l.value, l.revision, l.created
    FROM {_REPLACED_SINCE} CROSS JOIN log AS l ON l.revision = r.previous
    {_carrying(terms)}
    ORDER BY 1 LIMIT :limit
    """


@functools.cache
def count_at(terms: int) -> str:
    """As many as live now, less those of them that were written since, plus what such writes replaced."""
    written = [f"CROSS JOIN term AS t{n} ON t{n}.term = :t{n} AND t{n}.key = w.key" for n in range(terms)]
    return f"""
    SELECT ({count_current(terms)})
    - (SELECT count(*) FROM {_WRITTEN_SINCE} CROSS JOIN current AS c ON c.key = w.key {" ".join(written)})
    + (SELECT count(*) FROM {_REPLACED_SINCE} CROSS JOIN log AS l ON l.revision = r.previous {_carrying(terms)})
    """


_WRITTEN_SINCE = "(SELECT DISTINCT key FROM log WHERE revision > :at AND key >= :start AND key < :stop) AS w"
# SQLite takes `previous` from the row that has the least revision of its group.
_REPLACED_SINCE = """(
  SELECT previous, min(revision) FROM log
  WHERE revision > :at AND key >= :start AND key < :stop GROUP BY key
) AS r"""


def _living(terms: int) -> str:
    """CROSS JOIN keeps the order: the caller names the rarest term first."""
    if not terms:
        return "current AS c"
    return " CROSS JOIN ".join(f"term AS t{n}" for n in range(terms)) + " CROSS JOIN current AS c ON c.key = t0.key"


def _key(terms: int) -> str:
    """The column whose index is walked: in its order rows come without being sorted."""
    return "t0.key" if terms else "c.key"


def _in_range(terms: int) -> str:
    if not terms:
        return "c.key >= :start AND c.key < :stop"
    same = [f"t{n}.term = :t{n} AND t{n}.key = t0.key" for n in range(1, terms)]
    return " AND ".join(["t0.term = :t0", "t0.key >= :start", "t0.key < :stop", *same])


def _carrying(terms: int) -> str:
    if not terms:
        return ""
    return "WHERE " + " AND ".join(
        f"EXISTS (SELECT 1 FROM json_each(l.terms) WHERE value = :t{n})" for n in range(terms)
    )


# --- writing ----------------------------------------------------------------------------------------------

STATE = """
SELECT l.revision, l.created, l.terms
FROM current AS c CROSS JOIN log AS l ON l.revision = c.revision
WHERE c.key = ?
"""
VALUE = "SELECT value FROM log WHERE revision = ?"
INSERT_LOG = """
INSERT INTO log (revision, key, created, previous, deleted, terms, value) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
INSERT_CURRENT = "INSERT INTO current (revision, key) VALUES (?, ?)"
UPDATE_CURRENT = "UPDATE current SET revision = ? WHERE key = ?"
DELETE_CURRENT = "DELETE FROM current WHERE key = ?"
INSERT_TERM = "INSERT INTO term (term, key) VALUES (?, ?)"
DELETE_TERM = "DELETE FROM term WHERE term = ? AND key = ?"

# --- compaction -------------------------------------------------------------------------------------------

RAISE_FLOOR = """
UPDATE compaction SET floor = max(floor, min(:before, (SELECT coalesce(max(revision), 0) FROM log)))
"""
SWEPT = "SELECT swept, floor FROM compaction"
FORGET_SUPERSEDED = """
DELETE FROM log WHERE revision IN (
  SELECT previous FROM log WHERE revision > :swept AND revision <= :upto AND previous > 0
)
"""
FORGET_DELETIONS = "DELETE FROM log WHERE revision >= :swept AND revision < :upto AND deleted"
UPDATE_SWEPT = "UPDATE compaction SET swept = :upto"
