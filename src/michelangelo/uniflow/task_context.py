"""Whether this thread is inside a task, and inside which one.

Per thread, because the in-process executor runs tasks in threads of the driver while the workflow goes on in another.
The worker enters it around the user's function; the SDK reads it, so that a task called inside a task is a plain call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["TaskContext", "current", "entered"]


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The attempt that this thread is executing."""

    task: str = ""
    run_name: str = ""
    project: str = ""
    step: str = ""
    attempt: int = 1
    attempt_id: str = ""
    scratch: str = ""
    """A directory of this attempt, removed after it; empty: none was made."""


_local = threading.local()


def current() -> TaskContext | None:
    """The task that this thread is inside of, or None."""
    context: TaskContext | None = getattr(_local, "context", None)
    return context


@contextmanager
def entered(context: TaskContext) -> Iterator[TaskContext]:
    """This thread is inside of a task for the length of the block."""
    outer = current()
    _local.context = context
    try:
        yield context
    finally:
        _local.context = outer
