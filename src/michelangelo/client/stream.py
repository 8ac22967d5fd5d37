"""A watch over HTTP: one streaming GET, read by one thread, continued where it stopped when the server ends it in time.

It lists nothing and caches nothing. When the stream cannot be continued, `next` says why; whoever watches lists again.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import orjson
import urllib3

from michelangelo import errors
from michelangelo.client.client import WatchEvent
from michelangelo.client.transport import Transport
from michelangelo.meta import status

__all__ = ["HttpWatch"]

_MAX_WAITING_EVENTS: Final = 1000
"""The reader stops reading when its owner is this far behind, so the server notices and memory stays bounded."""
_MAX_EVENT_BYTES: Final = 64 << 20
_MAX_QUICK_ENDS: Final = 5


class HttpWatch:
    """`client.Watch` over HTTP. `close` may be called from any thread."""

    def __init__(
        self,
        transport: Transport,
        path: str,
        *,
        query: Mapping[str, str],
        resource_version: str,
        present: Sequence[WatchEvent] = (),
    ) -> None:
        """Opens the stream after `resource_version`; `present` are events to give first. Raises ApiError."""
        self._transport = transport
        self._path = path
        self._query = dict(query)
        self._resource_version = resource_version
        self._changed = threading.Condition()
        self._events: deque[WatchEvent] = deque(present)
        self._error: errors.ApiError | None = None
        self._closed = False
        self._is_opening = False
        self._response = self._open()
        self._thread = threading.Thread(target=self._read, name=f"watch {path}", daemon=True)
        self._thread.start()

    def next(self, timeout_seconds: float | None = None) -> WatchEvent | None:
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._error or self._closed, timeout_seconds)
            if self._closed:
                return None
            if self._events:
                event = self._events.popleft()
                self._changed.notify_all()
                return event
            if self._error:
                raise self._error
            return None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._events.clear()
            response, is_opening = self._response, self._is_opening
            self._changed.notify_all()
        try:
            response.shutdown()
        except (ValueError, RuntimeError, OSError):
            pass  # It ended by itself meanwhile.
        # A connection that is being made cannot be broken off: the thread closes it as soon as it is there.
        if threading.current_thread() is not self._thread and not is_opening:
            self._thread.join(5.0)

    def _open(self) -> urllib3.BaseHTTPResponse:
        # As the usual clients do: the server ends a watch after some minutes, not all of them at the same time.
        seconds = random.randint(240, 480)
        query = {**self._query, "resourceVersion": self._resource_version, "timeoutSeconds": str(seconds)}
        return self._transport.open(self._path, query=query, idle_timeout_seconds=seconds + 30.0)

    def _read(self) -> None:
        quick_ends = 0
        try:
            while not self._closed:
                started, before = time.monotonic(), self._resource_version
                self._read_stream()
                if self._resource_version != before or time.monotonic() - started > 1.0:
                    quick_ends = 0
                else:
                    quick_ends += 1
                    self._pause(quick_ends)
                self._reopen()
        except errors.ApiError as e:
            self._fail(e)
        except (urllib3.exceptions.HTTPError, OSError, AttributeError) as e:
            # AttributeError: http.client, when `close` took the socket away under a read.
            self._fail(self._transport.unavailable(e))
        finally:
            self._response.close()

    def _read_stream(self) -> None:
        for line in _lines(self._response):
            event = _event(line)
            metadata = event.object.get("metadata") or {}
            self._resource_version = metadata.get("resourceVersion") or self._resource_version
            with self._changed:
                self._changed.wait_for(lambda: len(self._events) < _MAX_WAITING_EVENTS or self._closed)
                if self._closed:
                    return
                self._events.append(event)
                self._changed.notify_all()

    def _pause(self, quick_ends: int) -> None:
        """A server that ends every stream at once is shutting down, or a proxy stands in between."""
        if quick_ends > _MAX_QUICK_ENDS:
            raise errors.UnavailableError(f"{self._transport.endpoint.server} ends every watch of {self._path} at once")
        with self._changed:
            self._changed.wait_for(lambda: self._closed, 0.02 * 2**quick_ends)

    def _reopen(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._is_opening = True
            self._response.close()
        response = self._open()
        with self._changed:
            self._is_opening = False
            self._response = response
            # `close` may have come in the meantime: then the loop ends before it reads this one.

    def _fail(self, error: errors.ApiError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(1 << 16, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
        if len(rest) > _MAX_EVENT_BYTES:
            raise errors.InternalError(f"the server sent a watch event of more than {_MAX_EVENT_BYTES} bytes")


def _event(line: bytes) -> WatchEvent:
    try:
        document = orjson.loads(line)
        kind, obj = document["type"], document["object"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as e:
        raise errors.InternalError(f"the server sent a watch event that is none: {line[:200]!r}") from e
    if kind == "ERROR":
        raise status.from_status(obj)
    return WatchEvent(kind, obj)
