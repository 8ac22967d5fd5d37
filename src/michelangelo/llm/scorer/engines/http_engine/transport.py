"""Bytes over connections: one POST at a time per thread, with a deadline for the whole of it and a limit on its size.

It follows no redirect (the key would go along), tries nothing twice, and says of each failure whether the server may
have done the work. The key stands in a header and nowhere else: `Transport` takes it out of every text it hands on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)

from michelangelo.llm.scorer.engines.http_engine import events
from michelangelo.llm.scorer.engines.http_engine.config import HttpEngineConfig

__all__ = ["Answer", "LostAnswerError", "NoServerError", "Transport"]

_MAX_BYTES: Final = 64 << 20
_CHUNK: Final = 64 << 10


class NoServerError(Exception):
    """Nothing was sent: no connection came about. `is_final`: trying again cannot help (a certificate, say)."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class LostAnswerError(Exception):
    """It was sent, and no whole answer came: the server may have done the work."""


@dataclass(frozen=True, slots=True)
class Answer:
    """headers: names in lower case. document: the parsed JSON, or the text where it is none (only with an error).

    first_token: on the engine's clock, where the answer came in pieces.
    """

    status: int
    headers: Mapping[str, str]
    document: Any
    first_token: float | None = None


class Transport:
    """One server. Thread-safe. clock: seconds, as the engine's."""

    def __init__(self, config: HttpEngineConfig, key: str, clock: Callable[[], float]) -> None:
        self._config = config
        self._key = key
        self._clock = clock
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=config.max_concurrency, block=False, retries=False)
        self._headers = {**config.headers, "content-type": "application/json", "accept": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def post(self, path: str, body: bytes, *, streams: bool, is_cancelled: Callable[[], bool]) -> Answer:
        """Raises NoServerError and LostAnswerError. A cancelled call that comes in pieces is lost at once."""
        # The machine's clock, not the engine's: sockets wait in real time.
        deadline = time.monotonic() + self._config.request_seconds
        timeout = urllib3.Timeout(connect=self._config.connect_seconds, read=self._config.request_seconds)
        headers = {**self._headers, "accept": "text/event-stream"} if streams else self._headers
        try:
            response = self._pool.request(
                "POST",
                self._config.base_url + path,
                body=body,
                headers=headers,
                timeout=timeout,
                redirect=False,
                preload_content=False,
            )
        except (NewConnectionError, ConnectTimeoutError, NameResolutionError) as e:
            raise NoServerError(f"no connection to {self._config.base_url}: {self.hide(_reason(e))}") from e
        except SSLError as e:
            raise NoServerError(f"no safe connection to {self._config.base_url}: {_reason(e)}", is_final=True) from e
        except HTTPError as e:
            raise LostAnswerError(f"the connection ended before an answer came: {self.hide(_reason(e))}") from e
        return self._read(response, deadline, streams, is_cancelled)

    def hide(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def close(self) -> None:
        self._pool.clear()

    def _read(
        self, response: urllib3.BaseHTTPResponse, deadline: float, streams: bool, is_cancelled: Callable[[], bool]
    ) -> Answer:
        headers = {name.lower(): value for name, value in response.headers.items()}
        is_whole = False
        first_token = None
        chunks = _chunks(response, deadline, is_cancelled)
        try:
            if streams and response.status == 200 and "event-stream" in headers.get("content-type", ""):
                document, first_token = self._assemble(chunks)
            else:
                document = _parse(b"".join(chunks), response.status)
            is_whole = True
        except (HTTPError, OSError) as e:
            raise LostAnswerError(f"the answer was cut off: {self.hide(_reason(e))}") from e
        except events.CutOffError as e:
            raise LostAnswerError(str(e)) from e
        finally:
            # A connection with something unread on it must not be used again.
            if is_whole:
                response.release_conn()
            else:
                response.close()
        return Answer(response.status, headers, document, first_token)

    def _assemble(self, chunks: Iterator[bytes]) -> tuple[Any, float | None]:
        assembler = events.Assembler()
        first_token = None
        for data in events.data_of(chunks):
            if assembler.add(data) and first_token is None:
                first_token = self._clock()
        return assembler.document(), first_token


def _chunks(response: urllib3.BaseHTTPResponse, deadline: float, is_cancelled: Callable[[], bool]) -> Iterator[bytes]:
    size = 0
    while chunk := response.read1(_CHUNK, decode_content=True):
        size += len(chunk)
        if size > _MAX_BYTES:
            raise LostAnswerError(f"the answer is larger than {_MAX_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise LostAnswerError("the answer took longer than request_seconds")
        if is_cancelled():
            raise LostAnswerError("the request was cancelled")
        yield chunk


def _parse(body: bytes, status: int) -> Any:
    try:
        return json.loads(body)
    except ValueError as e:
        if status == 200:
            raise LostAnswerError("the answer is no JSON, or half of it") from e
        return body.decode("utf-8", "replace")


def _reason(error: BaseException) -> str:
    """urllib3 wraps: the innermost reason says most, without the addresses of objects."""
    while (inner := getattr(error, "reason", None)) is not None and isinstance(inner, BaseException):
        error = inner
    text = str(error).rpartition("object at 0x")[2].partition(": ")[2] if "object at 0x" in str(error) else str(error)
    return text or type(error).__name__
