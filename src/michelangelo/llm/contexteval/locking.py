"""One writer per corpus folder: a file lock that the operating system frees when its owner ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from michelangelo import errors

__all__ = ["LOCK_FILE", "hold"]

LOCK_FILE: Final = "lock"


@contextlib.contextmanager
def hold(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Hold the lock of `folder`, which exists. If another has it: wait, or raise CorpusError that names it."""
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError as e:
            raise errors.CorpusError(
                f"{folder} is being written by {_owner(folder)}: wait for its end (--wait), or end it"
            ) from e
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        try:
            yield
        finally:
            # Closing frees it; an empty file says that nobody is there.
            file.truncate(0)


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / LOCK_FILE).read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
