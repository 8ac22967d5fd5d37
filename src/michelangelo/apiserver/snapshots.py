"""Reading what a selection selects as of one revision, page by page. It words no error and knows no token.

The index of the store holds the terms of now. A page of an older revision that is read by terms would therefore miss
objects which have lost a label since; `_by_terms` puts them back, out of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from michelangelo.apiserver import documents
from michelangelo.storage.store import Page, Record

if TYPE_CHECKING:
    from michelangelo.apiserver.selection import Selection
    from michelangelo.client.client import Object
    from michelangelo.storage.store import Store

__all__ = ["Slice", "read"]

_CHUNK: Final = 500
"""How many records are read at a time where the selection is decided here and not by the index."""
_CHANGES: Final = 1000
"""Above so many changes since the revision, all records of that revision are read instead."""


@dataclass(frozen=True, slots=True)
class Slice:
    objects: list[Object]
    revision: int
    last_key: str
    """The next slice starts after it; empty when this is the last one."""
    remaining: int = 0
    """Exact where everything is selected, else 0."""


def read(store: Store, selection: Selection, *, after: str = "", limit: int = 0, at: int | None = None) -> Slice:
    """Up to `limit` selected objects (0: all) behind the key `after`. Raises ExpiredError when `at` was compacted
    away."""
    chunk = limit if selection.is_everything else (max(limit, _CHUNK) if limit else 0)
    found: list[Object] = []
    last = ""
    while True:
        page = _page(store, selection, after, chunk, at)
        at = page.revision
        for record in page.records:
            obj = documents.decode(record)
            if not selection.matches(obj):
                continue
            if limit and len(found) == limit:
                return Slice(found, at, last)
            found.append(obj)
            last = record.key
        if not page.remaining:
            return Slice(found, at, "")
        if limit and len(found) == limit:
            return Slice(found, at, last, page.remaining if selection.is_everything else 0)
        after = page.records[-1].key


def _page(store: Store, selection: Selection, after: str, limit: int, at: int | None) -> Page:
    page = store.list(selection.prefix, after=after, limit=limit, at=at, terms=selection.terms)
    if at is None or not selection.terms:
        return page
    return _by_terms(store, selection, page, after, limit)


def _by_terms(store: Store, selection: Selection, page: Page, after: str, limit: int) -> Page:
    changes = store.events(selection.prefix, after=page.revision, limit=_CHANGES)
    if not changes:
        return page
    before: dict[str, Record] = {}
    seen: set[str] = set()
    complete = len(changes) < _CHANGES
    for row in changes:
        key = row.record.key
        if key in seen:
            continue
        seen.add(key)
        if row.previous is not None:
            before[key] = row.previous
        elif row.record.revision != row.record.created:
            complete = False
    if not complete:
        return store.list(selection.prefix, after=after, limit=limit, at=page.revision)
    present = {record.key for record in page.records}
    end = page.records[-1].key if page.records and page.remaining else None
    lost = [
        record
        for key, record in before.items()
        if key not in present and key > after and (end is None or key <= end) and record.revision <= page.revision
    ]
    # The caller filters, so it does no harm that some of these were never selected.
    return Page(sorted([*page.records, *lost], key=lambda record: record.key), page.revision, page.remaining)
