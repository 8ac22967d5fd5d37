"""A watch as a cursor over the log: `poll` gives what has happened since, and never waits.

Waiting is the caller's: the in-process client blocks on a condition that `ApiServer.subscribe` wakes, the HTTP server
awaits an event. So a watch holds neither thread nor queue, cannot fall behind anything but the log, and cannot miss,
repeat or reorder an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

from michelangelo import errors
from michelangelo.apiserver import documents, refusals, snapshots
from michelangelo.client.client import WatchEvent

if TYPE_CHECKING:
    from michelangelo.apiserver.selection import Selection
    from michelangelo.client.client import Object
    from michelangelo.storage.store import Event, Store

__all__ = ["BATCH", "WatchCursor"]

BATCH: Final = 500
_INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"


class WatchCursor:
    """Not thread safe: one reader."""

    def __init__(self, store: Store, selection: Selection, *, after: int | None) -> None:
        """`after=None` starts with the present objects, as ADDED."""
        self._store = store
        self._selection = selection
        self._initial: Iterator[list[WatchEvent]] | None = None
        if after is None:
            self._initial = self._present()
        self._after = after or 0

    @property
    def prefix(self) -> str:
        """Of the keys that it looks at, for `ApiServer.subscribe`."""
        return self._selection.prefix

    @property
    def resource_version(self) -> str:
        """Everything up to it has been polled; of meaning once `in_initial` is false."""
        return str(self._after)

    @property
    def in_initial(self) -> bool:
        """Whether present objects are still to come."""
        return self._initial is not None

    def poll(self) -> list[WatchEvent]:
        """The next events, BATCH or so; an empty list when there are none now.

        Raises ExpiredError when the events after the cursor were compacted away.
        """
        while self._initial is not None:
            batch = next(self._initial, None)
            if batch is None:
                self._initial = None
            elif batch:
                return batch
        while True:
            # The revision is read first: what is committed up to it must then be among the events.
            revision = self._store.revision()
            if revision <= self._after:
                return []
            try:
                rows = self._store.events(self._selection.prefix, after=self._after, limit=BATCH)
            except errors.ExpiredError as e:
                raise refusals.expired_watch(self._after) from e
            self._after = (
                rows[-1].record.revision
                if len(rows) >= BATCH
                else max(revision, rows[-1].record.revision if rows else 0)
            )
            seen = [event for row in rows if (event := self._seen(row)) is not None]
            if seen or len(rows) < BATCH:
                return seen

    def bookmark(self, *, initial_events_end: bool = False) -> WatchEvent:
        """A BOOKMARK that tells the reader how far it has come."""
        kind = self._selection.kind
        metadata: Object = {"resourceVersion": self.resource_version}
        if initial_events_end:
            metadata["annotations"] = {_INITIAL_EVENTS_END: "true"}
        return WatchEvent("BOOKMARK", {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata})

    def _present(self) -> Iterator[list[WatchEvent]]:
        selection = self._selection
        part = snapshots.read(self._store, selection, limit=BATCH)
        self._after = part.revision
        while True:
            yield [WatchEvent("ADDED", obj) for obj in part.objects]
            if not part.last_key:
                return
            part = snapshots.read(self._store, selection, after=part.last_key, limit=BATCH, at=self._after)

    def _seen(self, row: Event) -> WatchEvent | None:
        """The event as this selection sees it: what leaves the selection is deleted, what enters is added."""
        selection = self._selection
        created = row.record.revision == row.record.created
        current = documents.decode(row.record)
        matches = selection.matches(current)
        if row.deleted:
            return WatchEvent("DELETED", current) if matches else None
        if created:
            return WatchEvent("ADDED", current) if matches else None
        if selection.is_everything:
            return WatchEvent("MODIFIED", current)
        # Where the replaced row was compacted away, the object is taken to have matched: a reader that is told of a
        # deletion or a change of what it does not know ignores it, and one that does know must be told.
        previous = documents.decode(row.previous) if row.previous is not None else None
        matched = True if previous is None else selection.matches(previous)
        if not matched and not matches:
            return None
        event: Literal["ADDED", "MODIFIED", "DELETED"]
        event = "MODIFIED" if matches and matched else "ADDED" if matches else "DELETED"
        if event == "DELETED" and previous is not None:
            previous["metadata"]["resourceVersion"] = str(row.record.revision)
            return WatchEvent(event, previous)
        return WatchEvent(event, current)
