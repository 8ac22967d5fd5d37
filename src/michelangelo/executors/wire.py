"""What the driver's process executor and the worker's zygote say to each other.

Both sides share this one format: frames of JSON, with file descriptors beside them, over a Unix stream socket; and the
JSON forms of an attempt and of its outcome. It decides nothing: executors/supervisor.py and worker/zygote.py do.

Driver to zygote                                     Zygote to driver
  hello     how to set itself up                       ready     it can fork
  template  fork a zygote with a module (+ 1 fd)       refused   a template only: import the module after the fork
  start     run an attempt (+ 2 fds: result, log)      started   the attempt's process id
  signal    send a signal to an attempt's group        exited    wait status and peak memory; its group has been ended
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from michelangelo.executors.base import Attempt, AttemptState, CallTarget, Outcome, SecretValue

__all__ = [
    "CHANNEL_FD",
    "Channel",
    "Frames",
    "Message",
    "attempt_from_json",
    "attempt_to_json",
    "frame",
    "nameless_file",
    "outcome_from_json",
    "outcome_to_json",
]

Message = dict[str, Any]

CHANNEL_FD = 3
"""The number under which a new zygote finds its channel."""

_HEADER = struct.Struct(">QB")
_CHUNK = 1 << 18
_MAX_FDS = 64
_CLOEXEC_FLAG = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def frame(message: Message, fd_count: int = 0) -> bytes:
    """`message` as it goes over the wire, with `fd_count` descriptors beside it."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _HEADER.pack(len(body), fd_count) + body


class Frames:
    """Puts frames together from pieces of a stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Message, int]]:
        """The messages that `data` completes, each with its count of descriptors. ValueError on what is no frame."""
        self._buffer += data
        found: list[tuple[Message, int]] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            length, fd_count = _HEADER.unpack_from(self._buffer, start)
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            message = json.loads(self._buffer[start + _HEADER.size : end])
            if not isinstance(message, dict):
                raise ValueError("a frame holds a JSON object")
            found.append((message, fd_count))
            start = end
        if start:
            del self._buffer[:start]
        return found


class Channel:
    """A stream of messages with file descriptors over a Unix socket. Never blocks; one thread."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._frames = Frames()
        self._received_fds: deque[int] = deque()
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self.closed = False
        """Whether the other side went away."""

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def has_outgoing(self) -> bool:
        return bool(self._outgoing)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Queue `message` and send what goes at once. `fds` belong to the channel now: it closes them when sent."""
        self._outgoing.append((memoryview(frame(message, len(fds))), tuple(fds)))
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as it goes without waiting."""
        while self._outgoing and not self.closed:
            data, fds = self._outgoing[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._socket.sendmsg([data], ancillary)
            except BlockingIOError:
                return
            except OSError:
                self.closed = True
                break
            for fd in fds:
                os.close(fd)
            if sent == len(data):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (data[sent:], ())
        if self.closed:
            self._drop_outgoing()

    def receive(self) -> list[tuple[Message, tuple[int, ...]]]:
        """The messages that have come, each with its descriptors; `closed` is set at the end of the stream."""
        found: list[tuple[Message, tuple[int, ...]]] = []
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_CHUNK, socket.CMSG_SPACE(_MAX_FDS * 4), _CLOEXEC_FLAG)
            except BlockingIOError:
                return found
            except OSError:
                data, ancillary = b"", []
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                    self._received_fds.extend(fds)
            if not data:
                self.closed = True
                return found
            for message, fd_count in self._frames.feed(data):
                found.append((message, tuple(self._received_fds.popleft() for _ in range(fd_count))))
            if len(data) < _CHUNK:
                return found

    def close(self) -> None:
        self.closed = True
        self._drop_outgoing()
        while self._received_fds:
            os.close(self._received_fds.popleft())
        self._socket.close()

    def _drop_outgoing(self) -> None:
        while self._outgoing:
            for fd in self._outgoing.popleft()[1]:
                os.close(fd)


def attempt_to_json(attempt: Attempt) -> Message:
    """What the worker needs of an attempt; limits and the log are the driver's matter."""
    target = attempt.target
    return {
        "id": attempt.id,
        "target": [target.path, target.module, target.qualname],
        "arguments": dict(attempt.arguments),
        "environment": dict(attempt.environment),
        "context": dict(attempt.context),
        "config": dict(attempt.config),
        "working_directory": attempt.working_directory,
        "secrets": [[one.variable, one.value, one.as_file] for one in attempt.secrets],
    }


def attempt_from_json(message: Message) -> Attempt:
    path, module, qualname = message["target"]
    return Attempt(
        id=message["id"],
        target=CallTarget(path=path, module=module, qualname=qualname),
        arguments=message["arguments"],
        environment=message["environment"],
        context=message["context"],
        config=message["config"],
        working_directory=message["working_directory"],
        secrets=tuple(SecretValue(*one) for one in message["secrets"]),
    )


def outcome_to_json(outcome: Outcome) -> Message:
    error = None if outcome.error is None else dict(outcome.error)
    return {"id": outcome.id, "state": outcome.state.value, "output": outcome.output, "error": error}


def outcome_from_json(message: Message) -> Outcome:
    error: Mapping[str, Any] | None = message["error"]
    return Outcome(id=message["id"], state=AttemptState(message["state"]), output=message["output"], error=error)


def nameless_file() -> int:
    """The descriptor of an empty file that has no name, so that nothing can leave it behind."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("michelangelo")
    path = f"/tmp/michelangelo-{os.getpid()}-{time.monotonic_ns()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd
