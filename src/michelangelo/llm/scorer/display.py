"""How far a job is, on standard error: one line that is rewritten on a terminal, and now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

from michelangelo.llm.scorer.dispatching import Standing

__all__ = ["Display", "describe"]

_TERMINAL_SECONDS: Final = 0.25
_LINE_SECONDS: Final = 10.0


class Display:
    """Off: says nothing."""

    def __init__(self, *, is_on: bool = True, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_on = is_on
        self._is_terminal = is_on and self._stream.isatty()
        self._shown = time.monotonic()
        self._width = 0

    def say(self, text: str) -> None:
        """One whole line."""
        if self._is_on:
            self._clear()
            print(text, file=self._stream, flush=True)

    def progress(self, standing: Standing) -> None:
        now = time.monotonic()
        if not self._is_on or now - self._shown < (_TERMINAL_SECONDS if self._is_terminal else _LINE_SECONDS):
            return
        self._shown = now
        text = describe(standing)
        if self._is_terminal:
            print(f"\r{text:<{self._width}}", end="", file=self._stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._is_terminal and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream)
            self._width = 0


def describe(standing: Standing) -> str:
    """`1,200 of 10,000 rows, 3 failed, 4,100 tokens/s out, 52 rows/s, 2 replicas, 2m50s left`."""
    seconds = max(standing.seconds, 1e-9)
    rate = standing.scored_here / seconds
    said = [f"{standing.done:,} of {standing.rows:,} rows"]
    if standing.failed:
        said.append(f"{standing.failed:,} failed")
    said += [f"{standing.output_tokens / seconds:,.0f} tokens/s out", f"{rate:,.1f} rows/s"]
    said.append(f"{standing.replicas} replica{'' if standing.replicas == 1 else 's'}")
    if standing.lost:
        said.append(f"{standing.lost} lost")
    if rate and standing.done < standing.rows:
        said.append(f"{_duration((standing.rows - standing.done) / rate)} left")
    return ", ".join(said)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
