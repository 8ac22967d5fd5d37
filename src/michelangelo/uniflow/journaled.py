"""Time, chance and signals for workflow code, in the versions that a replay repeats.

Inside a run they go through its journal; inside a task and in plain Python they are the ordinary ones.
"""

from __future__ import annotations

import random as _random
import time
import uuid as _uuid
from datetime import UTC, datetime
from typing import Any

from michelangelo.errors import WorkflowError
from michelangelo.uniflow import runner, task_context

__all__ = ["now", "random", "sleep", "uuid", "wait_for_signal"]


def sleep(seconds: float) -> None:
    """Go on `seconds` later. In a run the hour of waking is recorded: a resumed run waits for the rest only."""
    if not seconds >= 0:
        raise ValueError(f"sleep({seconds!r}): must be 0 or more seconds")
    run = _run()
    if run is None:
        time.sleep(seconds)
    else:
        run.sleep(seconds)


def wait_for_signal(name: str, *, timeout_seconds: float | None = None) -> Any:
    """The payload of the next signal `name` that is sent to this run: how a person approves.

    Each signal is consumed once. Raises TimeoutError after `timeout_seconds`, WorkflowError outside of a run.
    """
    run = _run()
    if run is None:
        raise WorkflowError(f"wait_for_signal({name!r}) works in a workflow only: signals are sent to a run")
    return run.wait_for_signal(name, timeout_seconds=timeout_seconds)


def now() -> datetime:
    """The present, timezone-aware UTC; in a run, that of the first execution."""
    run = _run()
    return datetime.now(UTC) if run is None else run.now()


def random() -> _random.Random:
    """A generator of random numbers; in a run it is seeded by the run and the place of the call: replay repeats it."""
    run = _run()
    return _random.Random() if run is None else _random.Random(run.derive("random"))


def uuid() -> _uuid.UUID:
    """A new UUID (version 4); in a run, the same at every replay."""
    run = _run()
    return _uuid.uuid4() if run is None else _uuid.UUID(bytes=run.derive("uuid")[:16], version=4)


def _run() -> runner.RunContext | None:
    return None if task_context.current() is not None else runner.current_run()
