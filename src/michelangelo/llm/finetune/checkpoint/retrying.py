"""Trying again what a disk or an object store refused, with growing pauses; not what will be refused again."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

__all__ = ["Retry", "is_lasting"]

T = TypeVar("T")

_LASTING: Final = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
    }
)
"""A pause does not help: full, forbidden, not there."""


def is_lasting(error: OSError) -> bool:
    """Whether the same call would fail again."""
    return error.errno in _LASTING or isinstance(error, FileNotFoundError | PermissionError)


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` in all; pauses of `first_pause_seconds`, twice as long each time, up to `longest_pause_seconds`."""

    attempts: int = 3
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0
    pause: Callable[[float], None] = time.sleep

    def call(self, operation: Callable[[], T]) -> T:
        """Raises the OSError of the last attempt."""
        seconds = self.first_pause_seconds
        for _ in range(self.attempts - 1):
            try:
                return operation()
            except OSError as e:
                if is_lasting(e):
                    raise
            self.pause(seconds)
            seconds = min(2 * seconds, self.longest_pause_seconds)
        return operation()
