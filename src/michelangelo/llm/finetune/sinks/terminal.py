"""The progress of a run for people: a live line with a bar on a terminal, a bounded number of plain lines elsewhere.

It prints to the stream that it is given, which is standard error for a program, and reads no setting.
"""

from __future__ import annotations

import math
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from michelangelo.llm.finetune.recording import Alert, Ended, Evaluated, Event, Saved, Sink, SinkError, Started, Stepped

__all__ = ["LiveProgress", "PlainProgress", "SmoothedLoss", "make"]

_STEP_LINES: Final = 100
_OTHER_LINES: Final = 100
"""Of each kind: evaluations, checkpoints, alerts."""
_SMOOTHING: Final = 0.9


def make(stream: TextIO, *, no_color: bool) -> Sink:
    """For what `stream` is: live on a terminal."""
    return LiveProgress(stream, no_color=no_color) if stream.isatty() else PlainProgress(stream)


class SmoothedLoss:
    """The exponential moving average of the losses, corrected for its start; what is no number is left out."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, loss: float) -> float:
        """The average with it; NaN before the first number."""
        if math.isfinite(loss):
            self._sum = _SMOOTHING * self._sum + (1.0 - _SMOOTHING) * loss
            self._weight = _SMOOTHING * self._weight + (1.0 - _SMOOTHING)
        return self._sum / self._weight if self._weight else math.nan


class PlainProgress:
    """Lines of text, at most some hundreds however long the run is; what is left out is counted at the end."""

    name = "progress"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._smoothed = SmoothedLoss()
        self._total = 0
        self._every = 1
        self._printed: dict[type, int] = {}
        self._left_out = 0

    def receive(self, event: Event) -> None:
        if isinstance(event, Started):
            self._total = event.total_steps
            self._every = max(1, math.ceil((event.total_steps - event.step) / _STEP_LINES))
            self._print(_start_line(event))
        elif isinstance(event, Stepped):
            smoothed = self._smoothed.add(event.loss)
            if event.step % self._every == 0 or event.step == self._total or not self._printed.get(Stepped):
                self._printed[Stepped] = self._printed.get(Stepped, 0) + 1
                self._print(f"step {event.step}/{self._total}  {'  '.join(_numbers(event, smoothed))}")
        elif isinstance(event, Ended):
            if self._left_out:
                self._print(f"{self._left_out} more lines were left out")
            self._print(_other_line(event))
        else:
            count = self._printed[type(event)] = self._printed.get(type(event), 0) + 1
            if count <= _OTHER_LINES:
                self._print(_other_line(event))
            else:
                self._left_out += 1

    def close(self) -> None:
        """The stream is the caller's."""

    def _print(self, line: str) -> None:
        try:
            print(line, file=self._stream, flush=True)
        except (OSError, ValueError) as e:
            raise SinkError(f"the progress cannot be printed: {e}") from e


class LiveProgress:
    """One line that changes, and lines above it for what should stay."""

    name = "progress"

    def __init__(self, stream: TextIO, *, no_color: bool = False) -> None:
        console = Console(file=stream, no_color=no_color, highlight=False)
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            auto_refresh=False,
        )
        self._task: TaskID | None = None
        self._smoothed = SmoothedLoss()

    def receive(self, event: Event) -> None:
        try:
            self._show(event)
        except (OSError, ValueError) as e:
            raise SinkError(f"the progress cannot be printed: {e}") from e

    def close(self) -> None:
        """Leaves the last state on the terminal."""
        self._progress.stop()

    def _show(self, event: Event) -> None:
        if isinstance(event, Started):
            self._progress.console.print(_start_line(event), markup=False)
            self._task = self._progress.add_task("", total=event.total_steps, completed=event.step, numbers="")
            self._progress.start()
        elif isinstance(event, Stepped):
            if self._task is not None:
                numbers = "  ".join(_numbers(event, self._smoothed.add(event.loss)))
                self._progress.update(self._task, completed=event.step, numbers=numbers, refresh=True)
        else:
            if isinstance(event, Ended):
                self._progress.stop()
            self._progress.console.print(Text(_other_line(event), style=_style(event)))


def _start_line(event: Started) -> str:
    share = event.num_trained_parameters / max(event.num_parameters, 1)
    start = f"resumes after step {event.step} of {event.total_steps}" if event.step else f"{event.total_steps} steps"
    planned = event.plan.get("allocated_bytes")
    plan = f", {planned / 2**30:.2f} GiB planned" if isinstance(planned, int | float) else ""
    return (
        f"training {_count(event.num_trained_parameters)} of {_count(event.num_parameters)} parameters ({share:.2%}), "
        f"{start}{plan}"
    )


def _numbers(event: Stepped, smoothed: float) -> list[str]:
    """What is not known is left out."""
    shown = [f"loss {smoothed:.4f}" if math.isfinite(event.loss) else f"loss {event.loss}"]
    shown.append(f"lr {event.learning_rate:.2e}")
    if math.isfinite(event.tokens_per_second):
        shown.append(f"{event.tokens_per_second:,.0f} tokens/s")
    if math.isfinite(event.mfu) and event.mfu > 0.0:
        shown.append(f"MFU {event.mfu:.1%}")
    if event.memory_bytes > 0:
        shown.append(f"{event.memory_bytes / 2**30:.2f} GiB")
    if math.isfinite(event.eta_seconds):
        shown.append(f"ETA {_duration(event.eta_seconds)}")
    return shown


def _other_line(event: Event) -> str:
    if isinstance(event, Evaluated):
        metrics = "".join(f"  {name} {value:.4g}" for name, value in event.metrics.items())
        best = "  (the best)" if event.is_best else ""
        return f"evaluation at step {event.step}: loss {event.loss:.4f}{metrics}{best}"
    if isinstance(event, Saved):
        cost = f"{event.num_bytes / 2**20:,.1f} MiB in {event.seconds:.1f} s"
        return f"checkpoint of step {event.step}: {event.path} ({cost})"
    if isinstance(event, Alert):
        return f"warning: {event.kind}: {event.message}"
    if isinstance(event, Ended):
        where = f" at step {event.step}" if event.step else ""
        return f"{event.outcome}{where}" + (f": {event.message}" if event.message else "")
    raise TypeError(f"{type(event).__name__} has no line of its own")


def _style(event: Event) -> str:
    if isinstance(event, Alert):
        return "yellow"
    if isinstance(event, Ended):
        return {"Succeeded": "green", "Stopped": "yellow"}.get(event.outcome, "red")
    return "cyan" if isinstance(event, Evaluated) else "dim"


def _count(number: int) -> str:
    """`8.03B`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return str(number)


def _duration(seconds: float) -> str:
    """`1:02:03`, `2:03`."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
