"""Where the workers of a Ray report: a server that takes connections from those who know its token, and nobody else.

What becomes of a connection once it has said whose it is, is the agent's matter (worker/ray/agent.py).
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import json
import secrets
import socket
from collections.abc import Callable
from typing import Any, Final

from michelangelo.executors import loop

__all__ = ["Reception"]

_NAME_SECONDS: Final = 10.0
_MAX_NAME: Final = 4096


class Reception:
    """Listens on `host`, in the agent's loop; `arrived` gets each connection with its name: id, role, pid."""

    def __init__(self, around: loop.Loop, host: str, arrived: Callable[[socket.socket, dict[str, Any]], None]) -> None:
        self._loop = around
        self._arrived = arrived
        self._token = secrets.token_hex(16)
        self._nameless: set[socket.socket] = set()
        self._server = socket.create_server((host, 0), backlog=256)
        self._server.setblocking(False)
        self.place: tuple[str, int, str] = (host, self._server.getsockname()[1], self._token)
        """What a worker has to know: host, port, token."""
        around.listen(self._server.fileno(), self._on_newcomer)

    def close(self) -> None:
        self._server.close()
        for connection in self._nameless:
            connection.close()

    def _on_newcomer(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _address = self._server.accept()
                connection.setblocking(False)
                self._nameless.add(connection)
                self._loop.listen(connection.fileno(), functools.partial(self._on_name, connection))
                self._loop.after(_NAME_SECONDS, functools.partial(self._turn_away, connection))

    def _on_name(self, connection: socket.socket, _: int) -> None:
        """The first line says who it is."""
        if connection not in self._nameless:
            return
        try:
            data = connection.recv(_MAX_NAME, socket.MSG_PEEK)
            line, found, _rest = data.partition(b"\n")
            if data and not found and len(data) < _MAX_NAME:
                return
            name = self._read(line)
            connection.recv(len(line) + 1)
        except (OSError, ValueError):
            self._turn_away(connection)
            return
        self._nameless.discard(connection)
        self._loop.forget(connection.fileno())
        self._arrived(connection, name)

    def _turn_away(self, connection: socket.socket) -> None:
        if connection in self._nameless:
            self._nameless.discard(connection)
            self._loop.forget(connection.fileno())
            connection.close()

    def _read(self, line: bytes) -> dict[str, Any]:
        """Raises ValueError for whoever does not know the token."""
        name = json.loads(line)
        if not isinstance(name, dict) or not hmac.compare_digest(str(name.get("token", "")), self._token):
            raise ValueError("not one of our workers")
        return {"id": str(name.get("id", "")), "role": str(name.get("role", "")), "pid": int(name.get("pid", 0))}
