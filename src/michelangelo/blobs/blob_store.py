"""The BlobStore protocol: bytes under the digest of their content. It knows no codec, no run and no kind.

The name of a blob is what it contains, so a blob is never changed, writing it twice is writing it once, and every read
is checked against the name. Every implementation passes the one conformance suite in tests/blobs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import BinaryIO, Final, Protocol, runtime_checkable

from michelangelo.errors import StorageError

__all__ = ["CHUNK_BYTES", "Blob", "BlobStore", "LocalPaths", "digest_of", "parse_digest"]

CHUNK_BYTES: Final = 1 << 20
"""Streams are read and written in pieces of this size."""

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True)
class Blob:
    """`digest` is `sha256:<64 hex>`, `size` in bytes."""

    digest: str
    size: int


class BlobStore(Protocol):
    """All methods may be called from any thread, and from several processes on one store."""

    def put(self, data: bytes) -> Blob:
        """Store `data`. StorageError when it cannot be written; then nothing is left behind."""
        ...

    def put_file(self, source: str | PathLike[str] | BinaryIO) -> Blob:
        """Store the bytes of a file, or of a binary stream from where it stands to its end, in pieces."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes. StorageError when the blob is missing, IntegrityError when its bytes are not those of `digest`."""
        ...

    def open(self, digest: str) -> BinaryIO:
        """A reader of the bytes, in order; IntegrityError at its end when they are not those of `digest`."""
        ...

    def has(self, digest: str) -> bool: ...

    def delete(self, digest: str) -> None:
        """A blob that is not there is deleted already."""
        ...

    def iterate(self) -> Iterator[Blob]:
        """All blobs, in no particular order; those written or deleted meanwhile may or may not be among them."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class LocalPaths(Protocol):
    """Capability: blobs are files of this machine."""

    def path(self, digest: str) -> str:
        """The file that holds the blob, for reading only. StorageError when it is missing."""
        ...


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parse_digest(digest: str) -> str:
    """The hexadecimal part. StorageError when `digest` is none, so that no name can leave the store's folder."""
    match = _DIGEST.match(digest)
    if match is None:
        raise StorageError(f"{digest!r} is no blob digest; it must be sha256: and 64 hexadecimal digits")
    return match[1]
