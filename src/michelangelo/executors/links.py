"""A link: the driver's connection to one zygote, and the attempts that depend on it.

The base link leads to the zygote that the driver started; each template link to one that was forked from that and has
imported a module of the user's. What becomes of the attempts is decided by executors/supervisor.py.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Sequence

from michelangelo.executors import running, wire
from michelangelo.executors.loop import Loop

__all__ = ["Link"]


class Link:
    """`name` is empty for the base. Attempts wait until it is `ready`, are launched through it, and lost with it."""

    def __init__(
        self,
        loop: Loop,
        channel: wire.Channel,
        name: str,
        on_message: Callable[[Link, wire.Message], None],
        on_lost: Callable[[Link], None],
    ) -> None:
        self.name = name
        self.channel = channel
        self.ready = False
        self.refused = False
        """A template that must not be forked: its module is imported after a fork from the base."""
        self.waiting: list[running.RunningAttempt] = []
        self.launched: dict[str, running.RunningAttempt] = {}
        self._loop = loop
        self._on_message = on_message
        self._on_lost = on_lost
        self._shut = False
        self._events = selectors.EVENT_READ
        loop.listen(channel.fileno(), self._on_events)

    def send(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        """Send a message with descriptors, which are closed here. One that the zygote does not get is lost with it."""
        self.channel.send(message, fds)
        self._listen()

    def shut(self) -> None:
        """Close the connection, which is how a zygote is told to end."""
        if not self._shut:
            self._shut = True
            self._loop.forget(self.channel.fileno())
            self.channel.close()

    def _on_events(self, events: int) -> None:
        if self._shut:
            return
        if events & selectors.EVENT_WRITE:
            self.channel.flush()
            self._listen()
        for message, _ in self.channel.receive():
            self._on_message(self, message)
        if self.channel.closed and not self._shut:
            self.shut()
            self._on_lost(self)

    def _listen(self) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.channel.has_outgoing else 0)
        if wanted != self._events:
            self._events = wanted
            self._loop.listen(self.channel.fileno(), self._on_events, wanted)
