"""What a person sees of a run that goes on: one plain line per event, for logs and pipes.

The live display of a terminal is in progress_live.py, loaded only where there is one. It shows; it knows no engine
beyond the entries of the journal.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TextIO, cast

from michelangelo.engine.journal import Entry, EntryState, StepType

__all__ = ["PlainProgress", "Progress", "elapsed", "make_progress", "summary"]


class Progress(Protocol):
    """An observer of the engine, with a beginning and an end."""

    def begin(self, run: str, workflow: str, project: str) -> None: ...

    def restored(self, entries: Sequence[Entry]) -> None: ...

    def changed(self, entry: Entry) -> None: ...

    def end(self, state: str, message: str = "") -> None: ...


def make_progress(stream: TextIO, *, plain: bool) -> Progress:
    """Live where `stream` is a terminal, unless `plain`; else line by line."""
    if plain or not stream.isatty():
        return PlainProgress(stream)
    live = importlib.import_module("michelangelo.app.progress_live")
    return cast(Progress, live.LiveProgress(stream))


class PlainProgress:
    """A line per ended attempt."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._run = ""
        self._waits: set[tuple[str, str]] = set()
        self._is_gone = False

    def begin(self, run: str, workflow: str, project: str) -> None:
        self._run = run
        self._say(f"run {run}: workflow {workflow} in project {project}")

    def restored(self, entries: Sequence[Entry]) -> None:
        done = [entry for entry in entries if entry.final and entry.type is StepType.TASK]
        if entries:
            self._say(f"  {len(done)} steps are done already; going on")
        self._counts["done before"] = len(done)

    def changed(self, entry: Entry) -> None:
        if entry.type is StepType.VALUE:
            return
        if entry.state is EntryState.RUNNING:
            if entry.details.get("pending"):
                self._say(f"  {entry.task}: pending: {entry.details['pending']}")
            if entry.type is StepType.SIGNAL:
                self._say(f"  {entry.task}: waits for a signal of this name")
            return
        if entry.final and entry.type is StepType.TASK:
            self._counts[entry.state.value.lower()] += 1
        self._say(f"  {summary(entry)}")

    def waiting(self, step: str, task: str, reason: str) -> None:
        """Once for all steps of the task: there may be hundreds."""
        if (task, reason) not in self._waits:
            self._waits.add((task, reason))
            self._say(f"  {task}: {reason}")

    def end(self, state: str, message: str = "") -> None:
        counts = ", ".join(f"{number} {what}" for what, number in self._counts.items() if number)
        steps = f" ({counts})" if counts else ""
        self._say(f"run {self._run} {state} after {time.monotonic() - self._begun:.2f} s{steps}")
        if message:
            self._say(message)

    def _say(self, text: str) -> None:
        if self._is_gone:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads it any more (a pipe into `head`): that is no reason for the run to end.
            self._is_gone = True


def summary(entry: Entry) -> str:
    """One ended attempt in a line."""
    text = f"{entry.task}: {entry.state.value.lower()}"
    if entry.attempt > 1:
        text += f" (attempt {entry.attempt})"
    if entry.state is EntryState.CACHED:
        return f"{text} from {(entry.details.get('source') or {}).get('pipelineRun', 'an earlier run')}"
    text += f" in {elapsed(entry):.3f} s"
    if entry.error is not None:
        name = str(entry.error.get("type", "")).removeprefix("builtins.")
        text += f": {name.rpartition('.')[2]}: {entry.error.get('message', '')}"
        if entry.error.get("file"):
            text += f" ({entry.error['file']}:{entry.error.get('line')})"
    if not entry.final and entry.state is not EntryState.UNKNOWN:
        # What an entry names as its repair makes the data again that this attempt did not find.
        text += (
            "; its data is made again, then it will run again" if "repair" in entry.details else "; it will run again"
        )
    return text


def elapsed(entry: Entry) -> float:
    """Seconds from start to end."""
    if not entry.ended_at:
        return 0.0
    return (datetime.fromisoformat(entry.ended_at) - datetime.fromisoformat(entry.started_at)).total_seconds()
