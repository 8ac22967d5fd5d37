"""How a replica and the driver talk: JSON lines over a socket, or queues in one process. Small messages, no rows."""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import orjson

__all__ = ["Channel", "Message", "QueueChannel", "SocketChannel", "lines"]

Message: TypeAlias = dict[str, Any]


class Channel(Protocol):
    """A replica's end."""

    def send(self, message: Message) -> None: ...

    def receive(self, timeout: float | None) -> Message | None:
        """None: nothing came in `timeout` seconds (None: no limit, 0: now)."""
        ...


class QueueChannel:
    """In the driver's process, or in an actor's: what is sent goes to `send_to`."""

    def __init__(self, send_to: Callable[[Message], None]) -> None:
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._send_to = send_to

    def send(self, message: Message) -> None:
        self._send_to(message)

    def receive(self, timeout: float | None) -> Message | None:
        try:
            return self.inbox.get(timeout != 0, timeout)
        except queue.Empty:
            return None


class SocketChannel:
    """A replica in a process of its own; `inbox` is filled by a thread that reads the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def send(self, message: Message) -> None:
        self._connection.sendall(orjson.dumps(message) + b"\n")

    def receive(self, timeout: float | None) -> Message | None:
        try:
            return self.inbox.get(timeout != 0, timeout)
        except queue.Empty:
            return None


def lines(connection: socket.socket) -> Iterator[Message]:
    """Messages until the other end is closed."""
    with connection.makefile("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield orjson.loads(line)
