"""A watch over HTTP: one JSON document a line, for as long as the client listens. It holds no thread: the store's call
is turned into an event of the loop, and reading starts when that is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Final

import orjson

from michelangelo import errors
from michelangelo.apiserver.http import replies
from michelangelo.meta import status

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.apiserver.http.metrics import Metrics
    from michelangelo.apiserver.http.negotiation import Form
    from michelangelo.apiserver.options import WatchOptions
    from michelangelo.apiserver.verbs import ApiServer
    from michelangelo.apiserver.watching import WatchCursor
    from michelangelo.client.client import WatchEvent

__all__ = ["BOOKMARK_SECONDS", "WatchStream"]

BOOKMARK_SECONDS: Final = 60.0


class WatchStream:
    """The lines of one watch."""

    def __init__(
        self,
        api: ApiServer,
        cursor: WatchCursor,
        kind: Kind,
        options: WatchOptions,
        form: Form,
        *,
        closing: asyncio.Event,
        include: str = "Metadata",
    ) -> None:
        """It ends when `closing` is set, as it does when its time is up; a client then watches again."""
        self._api = api
        self._cursor = cursor
        self._kind = kind
        self._options = options
        self._form = form
        self._closing = closing
        self._include = include
        self._first = True

    async def lines(self, timeout_seconds: float, metrics: Metrics) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        end = loop.time() + timeout_seconds
        stop = self._api.subscribe(lambda _revision: _wake(loop, changed), prefix=self._cursor.prefix)
        metrics.watch_opened(self._kind.resource)
        try:
            # Headers have to go out at once, also when nothing happens for a while.
            yield b""
            next_bookmark = loop.time() + BOOKMARK_SECONDS
            while not self._closing.is_set():
                changed.clear()
                in_initial = self._cursor.in_initial
                events = self._cursor.poll()
                if in_initial and not self._cursor.in_initial and self._options.send_initial_events:
                    yield self._encode([*events, self._cursor.bookmark(initial_events_end=True)])
                    continue
                if events:
                    yield self._encode(events)
                    # A long catch-up must not keep others from the loop.
                    await asyncio.sleep(0)
                    continue
                now = loop.time()
                if now >= end:
                    return
                if now >= next_bookmark:
                    next_bookmark = now + BOOKMARK_SECONDS
                    if self._options.allow_bookmarks:
                        yield self._encode([self._cursor.bookmark()])
                await self._wait(changed, min(end, next_bookmark) - now)
        except errors.ApiError as e:
            yield _line("ERROR", status.to_status(e))
        finally:
            stop()
            metrics.watch_closed(self._kind.resource)

    async def _wait(self, changed: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self._closing.wait())]
        try:
            await asyncio.wait(waits, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    def _encode(self, events: Iterable[WatchEvent]) -> bytes:
        return b"".join(self._event(event) for event in events)

    def _event(self, event: WatchEvent) -> bytes:
        if event.type == "BOOKMARK" and self._form.shape != "Table":
            return _line(event.type, event.object)
        shown = replies.shaped(self._kind, event.object, self._form, include=self._include, with_columns=self._first)
        self._first = False
        return _line(event.type, shown)


def _line(kind_of_event: str, obj: object) -> bytes:
    return orjson.dumps({"type": kind_of_event, "object": obj}) + b"\n"


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(changed.set)
    except RuntimeError:
        # The loop was closed between the commit and this call: nobody listens any more.
        return
