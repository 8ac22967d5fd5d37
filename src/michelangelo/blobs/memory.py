"""Blobs in the memory of this process: the twin for tests and for runs that keep nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
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

    def put(self, data: bytes) -> Blob:
        digest = digest_of(data)
        self._blobs[digest] = bytes(data)
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
            raise StorageError(f"blob {digest} is not in memory") from error
        return reading.check(data, digest, "memory")

    def open(self, digest: str) -> BinaryIO:
        return io.BytesIO(self.get(digest))

    def has(self, digest: str) -> bool:
        parse_digest(digest)
        return digest in self._blobs

    def delete(self, digest: str) -> None:
        parse_digest(digest)
        self._blobs.pop(digest, None)

    def iterate(self) -> Iterator[Blob]:
        return iter([Blob(digest, len(data)) for digest, data in list(self._blobs.items())])

    def close(self) -> None:
        self._blobs.clear()
