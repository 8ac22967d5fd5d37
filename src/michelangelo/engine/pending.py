"""Attempts that an executor has taken but cannot start: shown with the reason, and not waited for without end.

The clock of `pending_timeout_seconds` runs from when an attempt began to wait, and anew whenever another attempt of the
run ends in the same executor: what only stands in the run's own queue is not given up.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from michelangelo.engine import failures
from michelangelo.engine.loop import Loop, Timer
from michelangelo.engine.recorder import Recorder
from michelangelo.engine.steps import Step
from michelangelo.engine.surroundings import Guard
from michelangelo.executors.base import AttemptState, Outcome

__all__ = ["PendingAttempts"]

_RECORD_SECONDS: Final = 10.0
"""A reason that changes (`3 of 8 are free`) is recorded at most this often."""


@dataclass
class _Waiting:
    step: Step
    since: float
    reason: str
    recorded_at: float
    timer: Timer


class PendingAttempts:
    """Used on the engine's thread."""

    def __init__(self, loop: Loop, recorder: Recorder, guard: Guard, *, cancel: Callable[[Step, str], None]) -> None:
        """`cancel` ends an attempt that has waited for too long."""
        self._loop = loop
        self._recorder = recorder
        self._guard = guard
        self._cancel = cancel
        self._waiting: dict[str, _Waiting] = {}
        self._given_up: dict[str, str] = {}
        self._progress: dict[str, float] = {}
        """When an attempt ended last, by executor."""

    def update(self, running: Mapping[str, Step], executor: str, reasons: Mapping[str, str]) -> None:
        """What `Pending.pending` of an executor says now."""
        for attempt_id in [name for name, one in self._waiting.items() if one.step.policy.executor == executor]:
            if not reasons.get(attempt_id):
                waiting = self._waiting.pop(attempt_id)
                waiting.timer.cancel()
                self._recorder.note(waiting.step, {"waitedSeconds": round(time.monotonic() - waiting.since, 3)})
        for attempt_id, reason in reasons.items():
            step = running.get(attempt_id)
            if step is not None and step.policy.executor == executor and step.current is not None and reason:
                self._wait(attempt_id, step, reason)

    def ended(self, step: Step, outcome: Outcome) -> Outcome:
        """An attempt has ended; its outcome, or that it was given up here."""
        self._progress[step.policy.executor] = time.monotonic()
        waiting = self._waiting.pop(outcome.id, None)
        if waiting is not None:
            waiting.timer.cancel()
        message = self._given_up.pop(outcome.id, "")
        if not message or outcome.state is not AttemptState.KILLED:
            return outcome
        error = failures.record("PendingTimeoutError", message)
        return dataclasses.replace(outcome, state=AttemptState.FAILED, error=error)

    def _wait(self, attempt_id: str, step: Step, reason: str) -> None:
        now = time.monotonic()
        waiting = self._waiting.get(attempt_id)
        if waiting is None:
            timer = self._later(attempt_id, step.policy.pending_timeout_seconds)
            self._waiting[attempt_id] = _Waiting(step, now, reason, now, timer)
            self._recorder.note(step, {"pending": reason})
        elif waiting.reason != reason:
            waiting.reason = reason
            if now - waiting.recorded_at >= _RECORD_SECONDS:
                waiting.recorded_at = now
                self._recorder.note(step, {"pending": reason})

    def _later(self, attempt_id: str, seconds: float) -> Timer:
        return self._loop.later(seconds, lambda: self._guard(self._expire, attempt_id))

    def _expire(self, attempt_id: str) -> None:
        waiting = self._waiting.get(attempt_id)
        if waiting is None:
            return
        policy = waiting.step.policy
        begun = max(waiting.since, self._progress.get(policy.executor, 0.0))
        left = begun + policy.pending_timeout_seconds - time.monotonic()
        if left > 0:
            waiting.timer = self._later(attempt_id, left)
            return
        self._given_up[attempt_id] = (
            f"it waited {policy.pending_timeout_seconds:g} s in the executor {policy.executor} and could not start: "
            f"{waiting.reason}. Have it ask for less, or raise its pending_timeout_seconds"
        )
        self._cancel(waiting.step, attempt_id)
