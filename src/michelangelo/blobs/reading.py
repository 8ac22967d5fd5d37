"""Readers that check what they read: a stream of a blob whose bytes are not its digest's fails at its end."""

from __future__ import annotations

import hashlib
import io
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast

from michelangelo.blobs.blob_store import CHUNK_BYTES
from michelangelo.errors import IntegrityError, StorageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["check", "checked"]


def check(data: bytes, digest: str, place: str) -> bytes:
    """`data`, when it is what `digest` says; else IntegrityError."""
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if found != digest:
        raise _damaged(digest, found, place)
    return data


def checked(raw: BinaryIO, digest: str, place: str) -> BinaryIO:
    """A buffered reader over `raw` that raises IntegrityError at the end when the bytes are not those of `digest`."""
    return cast(BinaryIO, _CheckedReader(_CheckedRaw(raw, digest, place), CHUNK_BYTES))


class _CheckedReader(io.BufferedReader):
    """Damage is told first: what a parser says of damaged bytes, before it has come to their end, helps nobody."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Exception) and not isinstance(error, StorageError) and not self.closed:
                while self.read(CHUNK_BYTES):
                    pass
        finally:
            self.close()


class _CheckedRaw(io.RawIOBase):
    """Hashes on the way. Sequential: a seek would leave bytes unchecked, so there is none."""

    def __init__(self, raw: BinaryIO, digest: str, place: str) -> None:
        self._raw = raw
        self._digest = digest
        self._place = place
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._raw.read(len(view))
        if data:
            self._hash.update(data)
            view[: len(data)] = data
        elif len(view):
            found = "sha256:" + self._hash.hexdigest()
            if found != self._digest:
                raise _damaged(self._digest, found, self._place)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _damaged(digest: str, found: str, place: str) -> IntegrityError:
    return IntegrityError(
        f"blob {digest} in {place} is damaged: its bytes have the digest {found}; delete it and run the step again"
    )
