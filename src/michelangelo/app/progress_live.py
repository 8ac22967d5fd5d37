"""The live display of a run in a terminal: what runs now, what was done, how long it took. Needs rich."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from michelangelo.app import progress
from michelangelo.engine.journal import Entry, EntryState, StepType

__all__ = ["LiveProgress"]

_MAX_RUNNING = 12
_STYLES = {
    EntryState.SUCCEEDED: ("✓", "green"),
    EntryState.CACHED: ("≡", "cyan"),
    EntryState.FAILED: ("✗", "red"),
    EntryState.KILLED: ("■", "yellow"),
    EntryState.LOST: ("?", "yellow"),
    EntryState.UNKNOWN: ("?", "red"),
}


class LiveProgress:
    """Done attempts scroll by; below them what runs and the totals."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Entry, float]] = {}
        self._counts: Counter[str] = Counter()
        self._begun = time.monotonic()
        self._run = ""
        self._waits: set[tuple[str, str]] = set()
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=8, transient=True)

    def begin(self, run: str, workflow: str, project: str) -> None:
        self._run = run
        self._console.print(Text.assemble("run ", (run, "bold"), f": workflow {workflow} in project {project}"))
        self._live.start()

    def restored(self, entries: Sequence[Entry]) -> None:
        done = sum(entry.final and entry.type is StepType.TASK for entry in entries)
        if done:
            self._counts["done before"] = done

    def changed(self, entry: Entry) -> None:
        if entry.type is StepType.VALUE:
            return
        with self._lock:
            if entry.state is EntryState.RUNNING:
                _, since = self._running.get(entry.step, (entry, time.monotonic()))
                self._running[entry.step] = (entry, since)
                return
            self._running.pop(entry.step, None)
            if entry.final and entry.type is StepType.TASK:
                self._counts[entry.state.value.lower()] += 1
        mark, style = _STYLES[entry.state]
        self._console.print(Text.assemble((f"  {mark} ", style), progress.summary(entry)), soft_wrap=True)

    def waiting(self, step: str, task: str, reason: str) -> None:
        """Once for all steps of the task: there may be hundreds."""
        if (task, reason) not in self._waits:
            self._waits.add((task, reason))
            self._console.print(Text(f"  … {task}: {reason}", style="dim"), soft_wrap=True)

    def end(self, state: str, message: str = "") -> None:
        self._live.stop()
        counts = ", ".join(f"{number} {what}" for what, number in self._counts.items() if number)
        style = {"succeeded": "bold green", "failed": "bold red"}.get(state, "bold yellow")
        took = f" after {time.monotonic() - self._begun:.2f} s" + (f" ({counts})" if counts else "")
        self._console.print(Text.assemble("run ", (self._run, "bold"), " ", (state, style), took))
        if message:
            self._console.print(Text(message), soft_wrap=True)

    def _render(self) -> Group:
        now = time.monotonic()
        with self._lock:
            running = list(self._running.values())
        lines = [
            Spinner("dots", Text(f" {entry.task}  {now - since:.1f} s{_pending(entry)}"))
            for entry, since in running[:_MAX_RUNNING]
        ]
        more = len(running) - len(lines)
        text = f"  and {more} more" if more > 0 else f"  {sum(self._counts.values())} done, {now - self._begun:.1f} s"
        return Group(*lines, Text(text, style="dim"))


def _pending(entry: Entry) -> str:
    reason = str(entry.details.get("pending", ""))
    return f"  pending: {reason}" if reason else ""
