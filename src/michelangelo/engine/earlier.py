"""Results of an earlier run that a new one takes over: `spec.resume` of a PipelineRun.

A step takes the result of the same step there: same place in the workflow, same code, same arguments, and it succeeded.
From the first step on that is named in `resumeFrom`, everything is done anew. It records nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from michelangelo.engine.journal import Entry, EntryState, StepType

__all__ = ["EarlierRun"]

_TAKEN: Final = (StepType.TASK, StepType.RUN)


class EarlierRun:
    """The successes of a run, by step."""

    def __init__(
        self, run: str, entries: Iterable[Entry], *, resume_from: Iterable[str] = (), accept_code: bool = False
    ) -> None:
        """`resume_from`: names of tasks, or identities of steps. `accept_code`: other code is no obstacle."""
        self.run = run
        self._resume_from = frozenset(resume_from)
        self._accept_code = accept_code
        self._successes = {
            entry.step: entry
            for entry in entries
            if entry.final and entry.type in _TAKEN and entry.state in (EntryState.SUCCEEDED, EntryState.CACHED)
        }

    def take(self, step: str, task: str, fingerprint: str) -> Entry | None:
        """The success that this step takes over; None when it has to run. Ask once per step, in order."""
        if not self._resume_from.isdisjoint((step, task)):
            self._successes.clear()
        found = self._successes.get(step)
        if found is None or found.task != task or not self._is_same(found.fingerprint, fingerprint):
            return None
        return found

    def _is_same(self, recorded: str, wanted: str) -> bool:
        if self._accept_code:
            return recorded.rpartition(":")[2] == wanted.rpartition(":")[2]
        return recorded == wanted
