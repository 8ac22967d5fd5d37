"""Every write of a driver to its journal: starts, ends, and the order of the ends.

It holds the two promises of the journal. A start is recorded before anything happens. An end is recorded before anybody
is told of it, and the ends of steps are numbered in the order in which they are recorded. It decides nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from michelangelo.engine.journal import Entry, EntryState
from michelangelo.engine.steps import Step, Verdict
from michelangelo.engine.surroundings import Surroundings, WaitObserver, instant

__all__ = ["Recorder"]


class Recorder:
    """Used on the engine's thread."""

    def __init__(self, around: Surroundings, settled: Callable[[Step], None]) -> None:
        """`settled` is called when a step has ended for good, and this is recorded."""
        self.completions = 0
        """The index of the last end."""
        self._around = around
        self._settled = settled

    def begin(self, step: Step, details: Mapping[str, Any]) -> None:
        """Record the start of the step's next attempt."""
        entry = self._entry(step, EntryState.RUNNING, details)
        self._around.check_lease()
        self._around.journal.start(entry)
        step.attempts.append(entry)
        self._tell(entry)

    def whole(
        self,
        step: Step,
        state: EntryState,
        *,
        output: Any = None,
        error: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an end without a start: a cache hit, an observed value, a step that cannot run."""
        entry = self._entry(step, state, details or {})
        self._end(
            step,
            dataclasses.replace(
                entry,
                output=output,
                error=error,
                ended_at=entry.started_at,
                completion=self.completions + 1,
                final=True,
            ),
        )

    def end(
        self, step: Step, verdict: Verdict, *, output: Any = None, details: Mapping[str, Any] | None = None
    ) -> None:
        """Record how the attempt that runs has ended."""
        entry = step.attempts.pop()
        self._end(
            step,
            dataclasses.replace(
                entry,
                state=verdict.state,
                output=output if verdict.state is EntryState.SUCCEEDED else None,
                error=verdict.error,
                ended_at=instant(),
                completion=self.completions + 1 if verdict.final else 0,
                final=verdict.final,
                driver=self._around.driver,
                details={**entry.details, **(details or {})},
            ),
        )

    def note(self, step: Step, details: Mapping[str, Any]) -> None:
        """Record something of the attempt that runs; `pending` holds until the next note."""
        entry = step.attempts.pop()
        kept = {name: value for name, value in entry.details.items() if name != "pending"}
        entry = dataclasses.replace(entry, details={**kept, **details})
        self._around.check_lease()
        self._around.journal.end(entry)
        step.attempts.append(entry)
        self._tell(entry)

    def waiting(self, step: Step, reason: str) -> None:
        """Tell, and record nothing."""
        for observer in self._around.observers:
            if isinstance(observer, WaitObserver):
                observer.waiting(step.id, step.task, reason)

    def _end(self, step: Step, entry: Entry) -> None:
        self._around.check_lease()
        self._around.journal.end(entry)
        step.attempts.append(entry)
        self._tell(entry)
        if entry.final:
            self.completions = entry.completion
            step.final = entry
            self._settled(step)

    def _entry(self, step: Step, state: EntryState, details: Mapping[str, Any]) -> Entry:
        place = {"file": step.location.file, "line": step.location.line} if step.location else {}
        return Entry(
            step=step.id,
            attempt=len(step.attempts) + 1,
            type=step.type,
            task=step.task,
            fingerprint=step.fingerprint,
            state=state,
            inputs=step.arguments,
            node=step.node,
            started_at=instant(),
            driver=self._around.driver,
            details={**place, **details},
        )

    def _tell(self, entry: Entry) -> None:
        for observer in self._around.observers:
            observer.changed(entry)
