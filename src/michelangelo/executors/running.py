"""One attempt while it runs in a process, as the driver sees it: its pipes, its log, its limits, and how it ended.

Owned by the one thread of executors/supervisor.py. It starts and signals nothing itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping
from typing import Any

from michelangelo import errors
from michelangelo.executors import logs, redaction, wire
from michelangelo.executors.base import Attempt, AttemptState, Outcome

__all__ = ["RunningAttempt", "failure"]

_READ_SIZE = 1 << 18
_DRAIN_LIMIT = 1 << 22
_ERRORS: Mapping[AttemptState, type[errors.MichelangeloError]] = {
    AttemptState.FAILED: errors.RequirementsError,
    AttemptState.TIMED_OUT: errors.TaskTimeoutError,
    AttemptState.KILLED: errors.TaskKilledError,
    AttemptState.OUT_OF_MEMORY: errors.OutOfMemoryError,
    AttemptState.LOST: errors.WorkerLostError,
}


def failure(state: AttemptState, message: str) -> dict[str, Any]:
    """The JSON form of an end that the user's code did not report itself."""
    bases = [cls for cls in _ERRORS[state].__mro__ if cls is not object]
    names = [cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}" for cls in bases]
    empty = {"traceback": "", "file": "", "line": 0, "function": "", "source": ""}
    return {"type": names[0], "types": names, "message": message, **empty}


class RunningAttempt:
    """From the moment the executor takes an attempt until its outcome is known."""

    def __init__(self, attempt: Attempt, *, log_limit_bytes: int, memory_limit_bytes: int) -> None:
        self.attempt = attempt
        self.memory_limit_bytes = attempt.resources.memory_bytes or memory_limit_bytes
        self.pid = 0
        """0 until the zygote has said which it is."""
        self.report: Outcome | None = None
        self.launched_by: wire.Channel | None = None
        """None while it waits for a zygote: then nothing of it has run."""
        self.result_fd = -1
        self.log_fd = -1
        self._log_limit = log_limit_bytes
        self._log: logs.BoundedLog | None = None
        self._frames = wire.Frames()
        self._verdict: tuple[AttemptState, str] | None = None

    @property
    def id(self) -> str:
        return self.attempt.id

    @property
    def is_condemned(self) -> bool:
        """Whether it has been decided how this attempt ends."""
        return self._verdict is not None

    def open(self) -> tuple[int, int]:
        """Make the pipes and the log; returns the worker's ends of the result and of the log. Raises OSError."""
        result_in, result_out = os.pipe()
        self.result_fd = result_in
        os.set_blocking(result_in, False)
        try:
            if not self.attempt.log_path:
                return result_out, os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            self._log = logs.BoundedLog(
                self.attempt.log_path, self._log_limit, redactor=redaction.redactor_of(self.attempt.secrets)
            )
            log_in, log_out = os.pipe()
        except OSError:
            os.close(result_out)
            self.close()
            raise
        self.log_fd = log_in
        os.set_blocking(log_in, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # A chatty task then wakes the driver sixteen times less; a user over the pipe quota keeps the small size.
            with contextlib.suppress(OSError):
                fcntl.fcntl(log_in, fcntl.F_SETPIPE_SZ, 1 << 20)
        return result_out, log_out

    def condemn(self, state: AttemptState, message: str) -> None:
        """Decide how this attempt ends, unless it has reported its end or that is decided already."""
        if self.report is None and self._verdict is None:
            self._verdict = (state, message)

    def read_result(self) -> int | None:
        """Take what the result pipe holds: bytes read, 0 at its end, None when it is empty now."""
        data = _read(self.result_fd)
        if data is None:
            return None
        try:
            for message, _ in self._frames.feed(data):
                if not self.is_condemned and self.report is None:
                    self.report = wire.outcome_from_json(message)
        except (ValueError, KeyError) as e:
            self.condemn(AttemptState.LOST, f"attempt {self.id} sent a damaged report: {e}")
        return len(data)

    def read_log(self) -> int | None:
        """Take what the log pipe holds: bytes read, 0 at its end, None when it is empty now."""
        data = _read(self.log_fd)
        if data is None:
            return None
        if self._log is not None:
            self._log.write(data)
        return len(data)

    def drain(self) -> None:
        """Take what the ended processes left in the pipes; not to their end: what escaped may hold them open."""
        for fd, read in ((self.result_fd, self.read_result), (self.log_fd, self.read_log)):
            left = _DRAIN_LIMIT if fd >= 0 else 0
            while left > 0 and (size := read()):
                left -= size

    def close(self) -> None:
        for fd in (self.result_fd, self.log_fd):
            if fd >= 0:
                os.close(fd)
        self.result_fd = self.log_fd = -1
        if self._log is not None:
            self._log.close()
            self._log = None

    def outcome(self, status: int | None, max_rss_bytes: int = 0) -> Outcome:
        """How it ended; `status` as `os.wait` gives it, None when nobody knows."""
        code = None if status is None else os.waitstatus_to_exitcode(status)
        if self.report is not None:
            state, output, error = self.report.state, self.report.output, self.report.error
        else:
            state, message = self._verdict or (AttemptState.LOST, self._lost(code))
            output, error = None, failure(state, message)
        redactor = redaction.redactor_of(self.attempt.secrets)
        if redactor is not None and error is not None:
            error = redactor.tree(error)
        return Outcome(id=self.id, state=state, output=output, error=error, exit_code=code, max_rss_bytes=max_rss_bytes)

    def _lost(self, code: int | None) -> str:
        target = f"{self.attempt.target.module}.{self.attempt.target.qualname}"
        if code is None:
            return f"the process of attempt {self.id} ({target}) was lost before it gave a result"
        if code >= 0:
            return (
                f"the process of attempt {self.id} ({target}) exited with code {code} before it gave a result: "
                "something in it called os._exit or the like"
            )
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ": if nobody did that on purpose, the machine may be out of memory" if name == "SIGKILL" else ""
        return f"the process of attempt {self.id} ({target}) was ended by {name} before it gave a result{hint}"


def _read(fd: int) -> bytes | None:
    """Bytes, b"" at the end, None when there are none now."""
    try:
        return os.read(fd, _READ_SIZE)
    except BlockingIOError:
        return None
