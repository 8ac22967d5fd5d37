"""What a write demands of the state that it meets, the same for every store. Reads no store, writes nothing."""

from __future__ import annotations

from michelangelo import errors
from michelangelo.storage import keys
from michelangelo.storage.store import ABSENT, ANY, Write

__all__ = ["check_form", "check_state"]


def check_form(write: Write) -> None:
    """Raise ValueError for a key or term that no store can hold."""
    keys.check(write.key)
    for term in write.terms:
        keys.check(term)


def check_state(write: Write, current: int | None) -> None:
    """Raise the ApiError that refuses `write` when `current` is the revision of its key (None: absent)."""
    if current is None:
        if write.value is None or write.expected not in (ABSENT, ANY):
            raise errors.NotFoundError(f"{write.key} does not exist: it was deleted, or never created")
    elif write.expected == ABSENT:
        raise errors.AlreadyExistsError(f"{write.key} exists already, at revision {current}")
    elif write.expected not in (ANY, current):
        raise errors.ConflictError(
            f"{write.key} is at revision {current}, not {write.expected}: read it again and repeat the change"
        )
