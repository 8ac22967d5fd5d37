"""The BlobStore protocol: bytes under the digest of their content. It knows no codec, no run and no kind.

The name of a blob is what it contains, so a blob is never changed, writing it twice is writing it once, and every read
is checked against the name. Every implementation passes the one conformance suite in tests/blobs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import BinaryIO, Final, Protocol, runtime_checkable

from michelangelo.errors import StorageError

__all__ = ["CHUNK_BYTES", "Blob", "BlobStore", "Collectable", "LocalPaths", "digest_of", "parse_digest"]

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
        """Store `data`. StorageError when it cannot be written; then nothing is left behind.

        What is there already is not written again, but it is as young as if it had been (`touch`)."""
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

    def touch(self, digest: str) -> bool:
        """Whether the blob is there; if so, it is young from now on, and stays for at least the time that a collector
        leaves to young blobs. To be called before a digest that was not just put is written into an object."""
        ...

    def delete(self, digest: str) -> None:
        """A blob that is not there is deleted already."""
        ...

    def iterate(self) -> Iterator[Blob]:
        """All blobs, in no particular order; those written or deleted meanwhile may or may not be among them."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Collectable(Protocol):
    """Capability: blobs have an age, so that those which nobody refers to can be removed (app/blob_collector.py)."""

    def now(self) -> float:
        """The time by the clock that ages are measured with: seconds since the epoch."""
        ...

    def ages(self) -> Iterator[tuple[Blob, float]]:
        """All blobs, each with the time at which it was written or touched last."""
        ...

    def discard(self, digests: Sequence[str], untouched_since: float) -> list[str]:
        """Delete those of the blobs that were neither written nor touched at or after that time; which they were.

        Against `put` and `touch` of the same blob, in any process, it is one step: either they come first, and the blob
        stays, or they come later, and find that it is gone."""
        ...

    def remove_stale(self, untouched_since: float) -> int:
        """Remove what writers that were killed before that time left half-written; how many pieces."""
        ...

    def join(self, platform: str, description: str) -> None:
        """Note that the objects of `platform` (an identity) refer to blobs of this store."""
        ...

    def platforms(self) -> dict[str, str]:
        """All that have joined, with their descriptions. Only who is alone knows all references, and may collect."""
        ...


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
