"""The Store protocol: keys, revisions, bytes. It knows no kind, no JSON and no Kubernetes.

One append-only log of revisions is the whole model. A write appends a row and gets the next revision; the
current state is the newest row of each key; a watch is 'rows after revision N'. So nothing can be seen that
was not committed, and no event bus has to be kept in step with the data. Revisions grow by commit order over
all processes that share one store.

Every implementation passes the one conformance suite in tests/storage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

__all__ = ["ABSENT", "ANY", "Event", "Page", "Record", "Store", "Write"]

ABSENT = 0
"""`Write.expected`: the key must not exist (a create)."""
ANY = None
"""`Write.expected`: whatever is there; the key may be absent."""


@dataclass(frozen=True, slots=True)
class Record:
    """One state of one key."""

    key: str
    value: bytes
    revision: int
    created: int
    """The revision that created this incarnation of the key."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the log. A deletion has `deleted=True` and the last value in `record`."""

    record: Record
    deleted: bool
    previous: Record | None
    """What the write replaced; None where it created the key, or where that row was compacted away."""


@dataclass(frozen=True, slots=True)
class Page:
    """Records in key order, as of `revision`. `remaining` counts those after the last one."""

    records: Sequence[Record]
    revision: int
    remaining: int = 0


@dataclass(frozen=True, slots=True)
class Write:
    """One conditional write. `value=None` deletes. `terms` are opaque index terms for `Store.list`."""

    key: str
    value: bytes | None
    expected: int | None = ANY
    """ABSENT, a revision that must be the key's current one, or ANY."""
    terms: frozenset[str] = frozenset()


class Store(Protocol):
    """What the API server stands on. All methods may be called from any thread."""

    def get(self, key: str) -> Record | None:
        """The current record, or None."""
        ...

    def list(
        self,
        prefix: str,
        *,
        after: str = "",
        limit: int = 0,
        at: int | None = None,
        terms: frozenset[str] = frozenset(),
    ) -> Page:
        """Records whose key starts with `prefix` and sorts after `after`, in key order, that carry all of `terms`.

        `at` reads the state of an older revision, with the terms of then. `limit=0` means all.
        Raises ExpiredError when `at` was compacted away, or is newer than the store (another one wrote it).
        """
        ...

    def write(self, write: Write) -> Future[Record]:
        """Queue a write for the next group commit; the future resolves when it is durable.

        It fails with ConflictError (`expected` is another revision), AlreadyExistsError (`expected=ABSENT` and the
        key exists), NotFoundError (a revision is expected, or a deletion asked for, and the key is absent), or
        StorageError. A deletion resolves to the last value with the revision of the deletion.
        """
        ...

    def events(self, prefix: str, *, after: int, limit: int = 1000) -> Sequence[Event]:
        """The log rows under `prefix` with a revision above `after`, oldest first. `limit=0` means all.

        Raises ExpiredError when `after` is below the revision of the last compaction, or is newer than the store.
        """
        ...

    def revision(self) -> int:
        """The newest committed revision; 0 for an empty store."""
        ...

    def subscribe(self, wake: Callable[[int], None], *, prefix: str = "") -> Callable[[], None]:
        """Call `wake(newest revision)` soon after each commit under `prefix`, of any process; returns how to stop.

        Calls come from a thread of the store, may be merged, may come without such a commit, and must not block.
        """
        ...

    def compact(self, before: int) -> None:
        """Forget the superseded rows and deletions of revisions below `before`; current records stay, and so does what
        `list(at=before)` and `events(after=before)` need. `before` is at most the newest revision."""
        ...

    def close(self) -> None:
        """Finish queued writes and let go of the file. Further calls raise StorageError."""
        ...
