"""The events of a run as a file, one JSON object per line: what other programs read to know how a run goes.

A line is written whole and at once, so it outlives the process; only the last one can be torn, and readers leave it
out. Checkpoints and the end are also flushed to the disk. A resumed run continues the file: what was recorded beyond
the checkpoint did not happen. JSON knows no NaN: numbers that are not finite are the strings `NaN`, `Infinity` and
`-Infinity`, as in protobuf's JSON, and `read` makes numbers of them again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.finetune import recording
from michelangelo.llm.finetune.recording import Ended, Event, Saved, SinkError, Started

__all__ = ["FILE_NAME", "EventsFile", "read"]

FILE_NAME: Final = "events.jsonl"
"""In the output folder of a run."""
_NUMBERS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_CONFIG: Final = "config"
"""The one field that holds words of users."""


class EventsFile:
    """Appends to `path`; its folder is made. Raises SinkError where it cannot be written."""

    name = "events file"

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as e:
            raise SinkError(f"{path}: cannot be written: {e.strerror}") from e

    def receive(self, event: Event) -> None:
        """Started forgets what is later than its step."""
        try:
            if isinstance(event, Started):
                self._forget_after(event.step)
            self._append(event)
        except OSError as e:
            raise SinkError(f"{self._path}: cannot be written: {e.strerror}") from e

    def close(self) -> None:
        """Nothing is left to write: every event is in the file already."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, event: Event) -> None:
        if self._descriptor is None:
            raise SinkError(f"{self._path}: was closed before the event {type(event).__name__}")
        _write(self._descriptor, _line(recording.to_dict(event)))
        if isinstance(event, Saved | Ended):
            os.fsync(self._descriptor)

    def _forget_after(self, step: int) -> None:
        """Keeps the whole lines up to `step`, none for a new run. The file is replaced at once, or stays as it was."""
        kept = b"".join(_line(event) for event in read(self._path) if step > 0 and event["step"] <= step)
        if self._path.read_bytes() == kept:
            return
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _write(descriptor, kept)
            os.fsync(descriptor)
            beside.replace(self._path)
        except OSError:
            os.close(descriptor)
            beside.unlink(missing_ok=True)
            raise
        self.close()
        self._descriptor = descriptor


def read(path: Path) -> list[dict[str, Any]]:
    """The events in their order, each with `event` for its class and `step`; empty where there is no file. A last line
    without an end is left out. Raises LlmError for any other line that is no event."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as e:
        raise errors.LlmError(f"{path}: cannot be read: {e.strerror}") from e
    return [_event(path, number, line) for number, line in enumerate(lines[:-1], start=1)]


def _event(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as e:
        raise errors.LlmError(f"{path}: line {number} is damaged: {e}; move the file away to start a new one") from e
    if not (isinstance(found, dict) and isinstance(found.get("event"), str) and isinstance(found.get("step"), int)):
        raise errors.LlmError(f"{path}: line {number} is no event of a training run; was another file meant?")
    return {key: value if key == _CONFIG else _map(value, _to_number) for key, value in found.items()}


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(_map(event, _to_text), allow_nan=False, default=str).encode() + b"\n"


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _map(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_map(one, change) for one in value]
    return change(value)


def _to_text(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _to_number(value: Any) -> Any:
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
