"""When a failed attempt is tried again, and how much later: pure functions of numbers and names.

The exception itself is not there: a task fails in another process, and what crosses the boundary is the qualified
names of its class and of its bases (`errors.UserCodeError.cause_types`). Nothing here sleeps, counts or keeps state.
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["NEVER", "Retry", "delay_seconds", "qualified_name", "type_names"]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how a task is tried again after a failure.

    `attempts` counts the retries: a task runs at most `attempts + 1` times. The n-th retry waits
    `backoff_seconds * factor ** (n - 1)`, at most `max_backoff_seconds`; `jitter` takes off up to that fraction, so
    that tasks which failed together do not come back together. `on` are the exception classes (or their qualified
    names) that are worth a retry, subclasses included; the platform's own failures have the names of
    `michelangelo.errors` (`TaskTimeoutError`, `OutOfMemoryError`). Empty: nothing is retried.
    """

    attempts: int = 0
    backoff_seconds: float = 1.0
    factor: float = 2.0
    max_backoff_seconds: float = 60.0
    jitter: float = 0.1
    on: tuple[type[BaseException] | str, ...] = (Exception,)

    def __post_init__(self) -> None:
        problems = [
            text
            for wrong, text in (
                (self.attempts < 0, f"attempts={self.attempts}: must be 0 or more"),
                (not self.backoff_seconds >= 0, f"backoff_seconds={self.backoff_seconds}: must be 0 or more"),
                (not self.factor >= 1, f"factor={self.factor}: must be 1 or more"),
                (
                    not self.max_backoff_seconds >= 0,
                    f"max_backoff_seconds={self.max_backoff_seconds}: negative",
                ),
                (
                    type(self.on) is not tuple,
                    f"on={self.on!r}: must be a tuple of exception classes, such as (OSError,)",
                ),
                (not 0 <= self.jitter <= 1, f"jitter={self.jitter}: must be between 0 and 1"),
            )
            if wrong
        ]
        if problems:
            raise ValueError("Retry: " + "; ".join(problems))

    def matches(self, names: Iterable[str]) -> bool:
        """Whether an exception whose class and bases have these qualified names is worth a retry."""
        wanted = {entry if isinstance(entry, str) else qualified_name(entry) for entry in self.on}
        return any(name in wanted or name.rpartition(".")[2] in wanted for name in names)


NEVER = Retry()


def delay_seconds(retry: Retry, retry_number: int, *, seed: str = "") -> float:
    """Seconds to wait before the `retry_number`-th retry (1, 2, …). The same `seed` gives the same jitter."""
    if retry_number < 1:
        raise ValueError(f"retry_number={retry_number}: the first retry is 1")
    try:
        delay = retry.backoff_seconds * retry.factor ** (retry_number - 1)
    except OverflowError:
        delay = retry.max_backoff_seconds
    delay = min(delay, retry.max_backoff_seconds)
    return delay * (1 - retry.jitter * _fraction(f"{seed}/{retry_number}"))


def qualified_name(kind: type[BaseException]) -> str:
    """`ValueError` for a builtin, else `module.QualName`: the form in which types cross process boundaries."""
    if kind.__module__ == builtins.__name__:
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def type_names(error: BaseException) -> list[str]:
    """The qualified names of an exception's class and of all its bases, nearest first, without `object`."""
    return [qualified_name(kind) for kind in type(error).__mro__ if kind is not object]


def _fraction(seed: str) -> float:
    """A number in [0, 1) that depends on `seed` alone."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big") / (1 << 56)
