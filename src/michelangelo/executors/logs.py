"""The log file of one attempt, bounded: the beginning and the end are kept, and a line says how much is missing.

The first half of the limit is written as it comes, so that a reader can follow it. What comes after is held in memory,
its older part dropped, and written when the log is closed. This module does not know where the bytes come from.
"""

from __future__ import annotations

import io
import os
from collections import deque

from michelangelo.executors.redaction import Redactor

__all__ = ["DEFAULT_LIMIT_BYTES", "BoundedLog"]

DEFAULT_LIMIT_BYTES = 10 * 1024 * 1024


class BoundedLog:
    """Appends to a file until `limit_bytes`. One thread at a time; `close` may be called twice."""

    def __init__(self, path: str, limit_bytes: int = DEFAULT_LIMIT_BYTES, *, redactor: Redactor | None = None) -> None:
        """`redactor`: for what must not be in it. Raises OSError when the file cannot be made."""
        self._file = _created(path)
        self._redactor = redactor
        self._head_left = limit_bytes // 2
        self._tail_limit = limit_bytes - limit_bytes // 2
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0

    def write(self, data: bytes) -> None:
        """Keep `data`, or as much of it as the limit allows. A full disk loses output, never the attempt."""
        self._keep(data if self._redactor is None else self._redactor.feed(data))

    def _keep(self, data: bytes) -> None:
        head = data[: self._head_left]
        if head:
            self._head_left -= len(head)
            self._append(head)
            data = data[len(head) :]
        if data:
            self._tail.append(data)
            self._tail_size += len(data)
            while self._tail_size - len(self._tail[0]) >= self._tail_limit:
                gone = len(self._tail.popleft())
                self._tail_size -= gone
                self._dropped += gone

    def close(self) -> None:
        if self._file.closed:
            return
        if self._redactor is not None:
            self._keep(self._redactor.flush())
        tail = b"".join(self._tail)
        surplus = max(0, len(tail) - self._tail_limit)
        dropped = self._dropped + surplus
        if dropped:
            self._append(b"\n[%d bytes of output left out here: over the limit of the log]\n" % dropped)
        self._append(tail[surplus:])
        self._tail.clear()
        self._file.close()

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError:
            self._head_left = 0


def _created(path: str) -> io.FileIO:
    """The file, in a folder that all attempts of a run but the first find there."""
    try:
        return open(path, "wb", buffering=0)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return open(path, "wb", buffering=0)
