"""The server process of a sandbox: `python -m michelangelo.app.sandbox_server`, with its settings on standard input.

It holds a lock on the sandbox for as long as it lives, which the kernel gives back whatever happens to it, and says
in a record of its own who and where it is. So whoever asks never trusts a process id alone. One line on standard
output tells how the start went.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any, Final

from michelangelo import errors
from michelangelo.app import serve, settings
from michelangelo.app.serve import Started
from michelangelo.runtime import processes

__all__ = ["LOCK", "READY", "RECORD", "is_locked", "main"]

LOCK: Final = "server.lock"
RECORD: Final = "server.json"
READY: Final = "ready"
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 0.02


def main() -> int:
    chosen = settings.from_json(json.load(sys.stdin))
    record = chosen.home / RECORD
    with (chosen.home / LOCK).open("a") as lock:
        if not _take(lock):
            return _tell("a server has this sandbox already", 3)
        identity = str(processes.of_this_process())
        _write(record, {"identity": identity})

        def ready(started: Started) -> None:
            _write(record, {"identity": identity, "url": started.url, "kubeconfig": started.kubeconfig})
            _tell(READY, 0)

        try:
            serve.serve(chosen, ready)
        except errors.MichelangeloError as error:
            return _tell(str(error), error.exit_code)
        finally:
            record.unlink(missing_ok=True)
    return 0


def is_locked(home: Path) -> bool:
    """Whether a server has the sandbox in `home`."""
    try:
        with (home / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _take(lock: IO[str]) -> bool:
    """Somebody may be asking at this moment whether it is locked, so once is not enough."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return True
    return False


def _tell(line: str, status: int) -> int:
    """Whoever started it may have gone."""
    try:
        sys.stdout.write(" ".join(line.split()) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _write(path: Path, document: dict[str, Any]) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(document), encoding="utf-8")
    os.replace(scratch, path)


if __name__ == "__main__":
    sys.exit(main())
