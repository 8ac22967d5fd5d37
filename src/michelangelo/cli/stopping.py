"""Ctrl-C as a request: the first one is taken note of, the second one ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

__all__ = ["stopping"]

_STDERR: Final = 2


@contextlib.contextmanager
def stopping(message: str) -> Iterator[list[int]]:
    """The signals (SIGINT, SIGTERM) that asked for an end so far; `message` is said at the first one."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        # Not through sys.stderr: the signal may have come in the middle of a line that is written there.
        with contextlib.suppress(OSError):
            os.write(_STDERR, f"{message}\n".encode())

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
