"""Timers and signals: the steps that run nothing and that the workflow waits for.

A timer's instant of waking is recorded when it begins, so a resumed run waits for the rest only; the same goes for the
time that a wait for a signal may take. Which signal a wait has consumed is recorded with its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from michelangelo.engine import failures
from michelangelo.engine.journal import Entry, EntryState
from michelangelo.engine.loop import Loop, Timer
from michelangelo.engine.recorder import Recorder
from michelangelo.engine.signals import Mailbox, Signal
from michelangelo.engine.steps import Step, Verdict
from michelangelo.engine.surroundings import Guard, Surroundings, instant

__all__ = ["Waits"]


class Waits:
    """Used on the engine's thread."""

    def __init__(self, around: Surroundings, loop: Loop, recorder: Recorder, guard: Guard) -> None:
        self._around = around
        self._loop = loop
        self._recorder = recorder
        self._guard = guard
        self._mailbox = Mailbox()
        self._steps: dict[str, Step] = {}
        self._signals: dict[str, Step] = {}
        self._timers: dict[str, Timer] = {}
        self._stop_source: Callable[[], None] | None = None

    def restore(self, entries: Sequence[Entry]) -> None:
        """What the journal says of signals that were consumed."""
        self._mailbox = Mailbox(
            str(entry.details["signal"]) for entry in entries if entry.final and entry.details.get("signal")
        )

    def sleep(self, step: Step, seconds: float) -> None:
        self._steps[step.id] = step
        if step.current is None:
            self._recorder.begin(step, {"wakeAt": instant(seconds)})
        self._wake_at(step, lambda: self._end(step, EntryState.SUCCEEDED))

    def await_signal(self, step: Step, timeout_seconds: float | None) -> None:
        self._steps[step.id] = self._signals[step.task] = step
        if step.current is None:
            self._recorder.begin(step, {} if timeout_seconds is None else {"wakeAt": instant(timeout_seconds)})
        source = self._around.signals
        if source is not None and self._stop_source is None:
            self._stop_source = source(lambda signal: self._loop.call(self._guard, self._arrived, signal))
        self._deliver(step.task)
        if step.current is not None and step.current.details.get("wakeAt"):
            late = failures.record("TimeoutError", f"no signal {step.task!r} came in time")
            self._wake_at(step, lambda: self._end(step, EntryState.FAILED, error=late))

    def stop(self, *, kill: bool) -> None:
        """Wake nobody any more. With `kill` what is waited for is recorded as killed; else it stays open."""
        for timer in self._timers.values():
            timer.cancel()
        self._signals.clear()
        if kill:
            killed = failures.record("TaskKilledError", "its run was ended")
            for step in list(self._steps.values()):
                self._guard(self._end, step, EntryState.KILLED, error=killed)

    def close(self) -> None:
        """End the thread that reads signals; from any thread."""
        if self._stop_source:
            self._stop_source()

    def _arrived(self, signal: Signal) -> None:
        self._mailbox.put(signal)
        self._deliver(signal.name)

    def _deliver(self, name: str) -> None:
        step = self._signals.get(name)
        signal = self._mailbox.consume(name) if step is not None else None
        if step is not None and signal is not None:
            self._end(step, EntryState.SUCCEEDED, output=signal.payload, details={"signal": signal.uid})

    def _wake_at(self, step: Step, call: Callable[[], None]) -> None:
        assert step.current is not None
        wake_at = datetime.fromisoformat(step.current.details["wakeAt"])
        delay = (wake_at - datetime.now(UTC)).total_seconds()
        self._timers[step.id] = self._loop.later(delay, lambda: self._guard(call))

    def _end(
        self,
        step: Step,
        state: EntryState,
        *,
        output: Any = None,
        error: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        timer = self._timers.pop(step.id, None)
        if timer is not None:
            timer.cancel()
        self._steps.pop(step.id, None)
        self._signals.pop(step.task, None)
        self._recorder.end(step, Verdict(state, final=True, error=error), output=output, details=details)
