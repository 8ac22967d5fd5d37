"""What the executors have in common at their thread-safe face: which attempts they take, and outcomes on their way to
`poll`. Where attempts run, and how they end, is each executor's own."""

from __future__ import annotations

import queue
from collections.abc import Collection

from michelangelo import errors
from michelangelo.executors.base import Outcome

__all__ = ["Outcomes", "check_can_take"]


class Outcomes:
    """Outcomes that nobody has polled yet, in the order in which they came. Any thread; one at a time takes."""

    def __init__(self) -> None:
        self._ended: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()

    def put(self, outcome: Outcome) -> None:
        self._ended.put(outcome)

    def wake(self) -> None:
        """Make a `take` that waits return at once."""
        self._ended.put(None)

    def take(self, timeout_seconds: float) -> list[Outcome]:
        """All that are there; waits up to `timeout_seconds` for the first, or for `wake`."""
        found: list[Outcome | None] = []
        try:
            found.append(self._ended.get(timeout=max(0.0, timeout_seconds)))
            while True:
                found.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        return [outcome for outcome in found if outcome is not None]


def check_can_take(
    executor: str, attempt_id: str, unfinished: Collection[str], *, capacity: int, is_closed: bool
) -> None:
    """Raises ExecutorError for an attempt that an executor with these unfinished ones must not take."""
    if is_closed:
        raise errors.ExecutorError(f"attempt {attempt_id} cannot be taken: the {executor} executor is closed")
    if attempt_id in unfinished:
        raise errors.ExecutorError(f"attempt {attempt_id} is running already")
    if len(unfinished) >= capacity:
        raise errors.ExecutorError(
            f"attempt {attempt_id} cannot be taken: {capacity} are running, which is the capacity; "
            "submit it when one has ended"
        )
