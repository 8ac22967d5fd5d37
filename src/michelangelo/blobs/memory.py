"""Blobs in the memory of this process: the twin for tests and for runs that keep nothing."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from michelangelo.blobs import reading
from michelangelo.blobs.blob_store import Blob, digest_of, parse_digest
from michelangelo.errors import StorageError

__all__ = ["MemoryBlobStore"]


class MemoryBlobStore:
    """A dict. Not shared with other processes."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._touched: dict[str, float] = {}
        self._platforms: dict[str, str] = {}
        self._lock = threading.Lock()

    def put(self, data: bytes) -> Blob:
        digest = digest_of(data)
        with self._lock:
            self._blobs[digest] = bytes(data)
            self._touched[digest] = self.now()
        return Blob(digest, len(data))

    def put_file(self, source: str | PathLike[str] | BinaryIO) -> Blob:
        try:
            return self.put(Path(source).read_bytes() if isinstance(source, str | PathLike) else source.read())
        except OSError as error:
            raise StorageError(f"cannot store a blob from {source}: {error}") from error

    def get(self, digest: str) -> bytes:
        parse_digest(digest)
        try:
            data = self._blobs[digest]
        except KeyError as error:
            raise StorageError(f"blob {digest} is not in memory; run the step again that made it") from error
        return reading.check(data, digest, "memory")

    def open(self, digest: str) -> BinaryIO:
        return io.BytesIO(self.get(digest))

    def has(self, digest: str) -> bool:
        parse_digest(digest)
        return digest in self._blobs

    def touch(self, digest: str) -> bool:
        parse_digest(digest)
        with self._lock:
            if digest in self._blobs:
                self._touched[digest] = self.now()
            return digest in self._blobs

    def delete(self, digest: str) -> None:
        parse_digest(digest)
        with self._lock:
            self._blobs.pop(digest, None)

    def iterate(self) -> Iterator[Blob]:
        return iter([Blob(digest, len(data)) for digest, data in list(self._blobs.items())])

    def now(self) -> float:
        return time.time()

    def ages(self) -> Iterator[tuple[Blob, float]]:
        with self._lock:
            return iter([(Blob(name, len(data)), self._touched[name]) for name, data in self._blobs.items()])

    def discard(self, digests: Sequence[str], untouched_since: float) -> list[str]:
        with self._lock:
            old = [one for one in digests if one in self._blobs and self._touched[one] < untouched_since]
            for digest in old:
                del self._blobs[digest]
            return old

    def remove_stale(self, untouched_since: float) -> int:
        return 0

    def join(self, platform: str, description: str) -> None:
        self._platforms[platform] = description

    def platforms(self) -> dict[str, str]:
        return dict(self._platforms)

    def close(self) -> None:
        self._blobs.clear()
