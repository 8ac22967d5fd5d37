"""Starting the zygote: the one process that the driver itself makes; all others are forked from it.

The zygote gets its channel, the run's marker in its environment, and everything else in a message (executors/wire.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from michelangelo.executors import processes, wire

__all__ = ["ENTRY", "Interpreter", "StartMethod", "ZygoteProcess"]

StartMethod = Literal["fork", "spawn"]

ENTRY = "import sys; sys.path.append(sys.argv[1]); from michelangelo.worker import zygote; zygote.main()"
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_FIRST_FREE_FD = 10
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
_STDERR_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that tasks run in."""

    python: str = sys.executable
    sys_path: Sequence[str] = ()
    """Empty: the driver's own at the time of the start."""
    start_method: StartMethod = "spawn" if sys.platform == "darwin" else "fork"
    """`spawn` starts a fresh interpreter per attempt, where a fork is not safe after system libraries were used."""
    environment_folder: str = ""
    """The environment that `python` belongs to (executors/environments.py): its packages, and none of the driver's.
    Empty: the driver's."""


class ZygoteProcess:
    """A zygote that was started; `channel` speaks to it. It ends by itself when the channel is closed."""

    def __init__(self, interpreter: Interpreter, *, run_id: str, blobs_url: str, scratch: str) -> None:
        """Starts it and returns at once. Raises OSError when the interpreter cannot be started."""
        ours, theirs = socket.socketpair()
        self._errors = wire.nameless_file()
        try:
            self.pid = _spawn(interpreter, theirs, self._errors, run_id)
        except OSError:
            ours.close()
            os.close(self._errors)
            raise
        finally:
            theirs.close()
        self.channel = wire.Channel(ours)
        self.channel.send(
            {
                "op": "hello",
                "driver": os.getpid(),
                "run_id": run_id,
                "blobs_url": blobs_url,
                "sys_path": _folders(interpreter),
                "keeps_path": bool(interpreter.environment_folder),
                "scratch": scratch,
                "start_method": interpreter.start_method,
            }
        )

    def errors(self) -> str:
        """The end of what it wrote to its standard error: why it did not start, or died."""
        size = os.fstat(self._errors).st_size
        return os.pread(self._errors, _STDERR_TAIL, max(0, size - _STDERR_TAIL)).decode(errors="replace").strip()

    def end(self, timeout_seconds: float) -> None:
        """Close the channel, wait until it is gone, force it after `timeout_seconds`."""
        self.channel.close()
        deadline = time.monotonic() + timeout_seconds
        processes.wait_until_gone(self.pid, deadline)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self._errors)


def _folders(interpreter: Interpreter) -> list[str]:
    """The driver's `sys.path`; for an environment, what of it is the user's own."""
    folders = list(interpreter.sys_path or sys.path)
    return [folder for folder in folders if _is_users(folder)] if interpreter.environment_folder else folders


def _is_users(folder: str) -> bool:
    libraries = os.path.dirname(os.__file__)
    name = os.path.basename(folder)
    if name in ("site-packages", "dist-packages") or name.endswith(".zip") or folder == _ROOT:
        return False
    return folder != libraries and not folder.startswith(libraries + os.sep)


def _spawn(interpreter: Interpreter, channel: socket.socket, errors: int, run_id: str) -> int:
    python, root = interpreter.python, _ROOT
    # Away from the low numbers first: on one that is the target already, dup2 would keep close-on-exec.
    fd = fcntl.fcntl(channel.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD)
    error_fd = fcntl.fcntl(errors, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD)
    # Tasks inherit the whole environment of whoever started the run; nothing is read from it here.
    environment = {**os.environ, processes.RUN_MARKER: run_id}
    if interpreter.environment_folder:
        root = os.path.dirname(python)  # nothing to be found there: the environment itself knows our package
        environment["VIRTUAL_ENV"] = interpreter.environment_folder
        environment["PATH"] = os.path.dirname(python) + os.pathsep + environment.get("PATH", os.defpath)
        environment.pop("PYTHONHOME", None)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, error_fd, 2),
        (os.POSIX_SPAWN_DUP2, fd, wire.CHANNEL_FD),
    ]
    argv = [python, "-P", "-c", ENTRY, root, run_id]
    # In a session of its own: Ctrl-C in a terminal is the driver's to handle. And with its signals as a new process has
    # them, whatever the driver or its parent ignore or block.
    spawn = functools.partial(
        os.posix_spawn, python, argv, environment, file_actions=actions, setsigmask=(), setsigdef=_SIGNALS
    )
    try:
        try:
            return spawn(setsid=True)
        except NotImplementedError:
            return spawn(setpgroup=0)
    finally:
        os.close(fd)
        os.close(error_fd)
