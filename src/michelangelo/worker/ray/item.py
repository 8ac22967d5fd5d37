"""One attempt as the agent holds it: its log, its limits, and how it ended. It speaks with nobody."""

from __future__ import annotations

import contextlib
import os
import socket

from michelangelo.executors import logs, redaction, running, wire
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.executors.ray.request import Request
from michelangelo.executors.ray.supervisor import failed

__all__ = ["Item"]


class Item:
    """From the moment the agent takes an attempt until its outcome is sent. One thread."""

    def __init__(self, message: wire.Message, log_limit_bytes: int) -> None:
        """Opens the log. Raises OSError."""
        self.attempt: Attempt = wire.attempt_from_json(message["attempt"])
        self.request = Request.from_json(message["request"])
        self.timeout_seconds: float = message["timeout_seconds"]
        self.memory_bytes: int = message["memory_bytes"]
        self.has_log = bool(message["log_path"])
        self.channel: wire.Channel | None = None
        """To the worker, from when that has asked for the attempt until it has gone."""
        self.log_socket: socket.socket | None = None
        self._has_log_come = False
        self.process_fd = -1
        """Of the worker's process, where that is below the agent."""
        self.was_started = False
        self.report: Outcome | None = None
        self.peak_bytes = 0
        self.is_over = False
        """Whether Ray has said that its task has ended."""
        self._verdict: tuple[AttemptState, str] | None = None
        self._redactor = redaction.redactor_of(self.attempt.secrets)
        self._log = None
        if self.has_log:
            self._log = logs.BoundedLog(
                message["log_path"], log_limit_bytes or logs.DEFAULT_LIMIT_BYTES, redactor=self._redactor
            )

    @property
    def id(self) -> str:
        return self.attempt.id

    @property
    def is_condemned(self) -> bool:
        return self._verdict is not None

    def condemn(self, state: AttemptState, message: str) -> None:
        """Decide how this attempt ends, unless it has reported its end or that is decided already."""
        if self.report is None and self._verdict is None:
            self._verdict = (state, message)

    @property
    def has_whole_log(self) -> bool:
        """Whether nothing more of it is to come. Its connection may come after the one that says how it ended."""
        return self.log_socket is None and (self._has_log_come or not self.has_log)

    def take_log(self, connection: socket.socket) -> None:
        """From now on the log is read from there."""
        self.log_socket, self._has_log_come = connection, True

    def write(self, data: bytes) -> None:
        if self._log is not None:
            self._log.write(data)

    def read_log(self) -> int | None:
        """Take what has come: bytes read, 0 at the end, None when there is nothing now."""
        if self.log_socket is None:
            return 0
        try:
            data = self.log_socket.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        self.write(data)
        return len(data)

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
        if self.log_socket is not None:
            while self.read_log():
                pass
            self.log_socket.close()
        self.channel = self.log_socket = None
        if self.process_fd >= 0:
            os.close(self.process_fd)
            self.process_fd = -1
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()

    def outcome(self) -> Outcome:
        if self.report is not None and not self.is_condemned:
            state, output, error = self.report.state, self.report.output, self.report.error
        else:
            state, message = self._verdict or (AttemptState.LOST, f"the worker process of attempt {self.id} was lost")
            output = None
            error = failed(self.id, message).error if state is AttemptState.FAILED else running.failure(state, message)
        if self._redactor is not None and error is not None:
            error = self._redactor.tree(error)
        return Outcome(id=self.id, state=state, output=output, error=error, max_rss_bytes=self.peak_bytes)
