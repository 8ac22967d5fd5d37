"""The body of a GET as a file that is read in pieces; broken connections are UnavailableError. It checks no digest."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import urllib3

from michelangelo import errors
from michelangelo.client.transport import Transport

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["download"]

_IDLE_SECONDS: Final = 60.0


def download(transport: Transport, path: str) -> BinaryIO:
    """The caller closes it. Raises the ApiError of a refusal, UnavailableError (also while reading)."""
    return cast(BinaryIO, _Download(transport, path))


class _Download(io.RawIOBase):
    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._response = transport.open(path, idle_timeout_seconds=_IDLE_SECONDS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._response.read(len(view))
        except urllib3.exceptions.HTTPError as e:
            said = self._transport.unavailable(e).message
            raise errors.UnavailableError(
                f"{said}; if that happens again, what is being read is damaged, and the server's log names it"
            ) from e
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()
