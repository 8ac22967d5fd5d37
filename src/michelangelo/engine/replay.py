"""What an earlier driver of the run recorded, and the check that the workflow still does the same.

`History` answers for each step which attempts there are, refuses a step that is not the one recorded at that place, and
tells at the end which recorded steps were never reached. It writes nothing and starts nothing (engine/scheduler.py
does).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from michelangelo import errors
from michelangelo.engine.callsites import CallSite
from michelangelo.engine.journal import Entry, StepType

__all__ = ["History", "place"]


class History:
    """The entries of a run by step, each step's in order of its attempts.

    With `accept_code` a task whose code has changed keeps its recorded result; its arguments must be the same.
    """

    def __init__(self, entries: Iterable[Entry], *, accept_code: bool = False) -> None:
        self._accept_code = accept_code
        self._steps: dict[str, list[Entry]] = {}
        self._reached: set[str] = set()
        for entry in sorted(entries, key=lambda entry: entry.attempt):
            self._steps.setdefault(entry.step, []).append(entry)
        self._missing = len(self._steps)
        recorded = [entry for attempts in self._steps.values() for entry in attempts]
        self.completions = max((entry.completion for entry in recorded), default=0)
        """The highest completion index that was recorded."""

    def __len__(self) -> int:
        return len(self._steps)

    def entries(self) -> list[Entry]:
        return [entry for attempts in self._steps.values() for entry in attempts]

    def has_ended(self, step: str) -> bool:
        """Whether the end of the step is recorded."""
        attempts = self._steps.get(step)
        return bool(attempts and attempts[-1].final)

    def reach(self, step: str, kind: StepType, task: str, fingerprint: str, site: CallSite) -> Sequence[Entry]:
        """The recorded attempts of the step that the workflow has come to.

        Raises NonDeterminismError when another step was recorded at that place.
        """
        attempts = self._steps.get(step, ())
        if not attempts:
            return ()
        if step not in self._reached:
            self._reached.add(step)
            self._missing -= 1
        recorded = attempts[-1]
        if recorded.type is not kind or recorded.task != task:
            raise errors.NonDeterminismError(
                f"{place(site.location())}: the workflow called {_named(kind, task)} where the journal has "
                f"{_named(recorded.type, recorded.task)} (step {step}, recorded at {_recorded_place(recorded)}). "
                f"{_ADVICE}"
            )
        if not self._same(recorded.fingerprint, fingerprint):
            what = "arguments" if _arguments(recorded.fingerprint) != _arguments(fingerprint) else "code"
            raise errors.NonDeterminismError(
                f"{place(site.location())}: {_named(kind, task)} has other {what} than the journal has for it "
                f"(step {step}, recorded at {_recorded_place(recorded)}). {_ADVICE}"
            )
        return attempts

    @property
    def is_complete(self) -> bool:
        """Whether the workflow has come to every recorded step: from here on it does what was never done before."""
        return self._missing == 0

    def check_complete(self, where: str) -> None:
        """Call where the workflow can only be after it has come to all that is recorded: at its end, and where it waits
        for what is not recorded. Raises NonDeterminismError."""
        missing = [attempts[-1] for step, attempts in self._steps.items() if step not in self._reached]
        if not missing:
            return
        first = min(missing, key=lambda entry: entry.started_at)
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise errors.NonDeterminismError(
            f"{_recorded_place(first)}: the journal has {_named(first.type, first.task)} (step {first.step}){more}, "
            f"but this time the workflow came to {where} without calling it. {_ADVICE}"
        )

    def _same(self, recorded: str, found: str) -> bool:
        if self._accept_code:
            return _arguments(recorded) == _arguments(found)
        return recorded == found


_ADVICE = (
    "A workflow must do the same again when it is resumed: take time, randomness and ids from uniflow.now, "
    "uniflow.random and uniflow.uuid, read files and services inside tasks, and resume a run only with the code that "
    "started it; or start a new run"
)


def _arguments(fingerprint: str) -> str:
    return fingerprint.rpartition(":")[2]


def _named(kind: StepType, task: str) -> str:
    return f"task {task}" if kind is StepType.TASK else f"{kind.value.lower()} {task}"


def place(location: errors.CodeLocation) -> str:
    """File, line and source, for a message."""
    if not location.file:
        return "the workflow"
    source = f" `{location.source}`" if location.source else ""
    return f"{location.file}:{location.line}{source}"


def _recorded_place(entry: Entry) -> str:
    file, line = entry.details.get("file"), entry.details.get("line")
    return f"{file}:{line}" if file else "an unknown place"
