"""Blobs as files of a directory: `<two hex>/<sixty-two hex>`, read-only, without fsspec.

A blob appears whole or not at all: it is written to `tmp/` beside its final place and renamed. Two writers of one blob
write the same bytes, so the later rename changes nothing. Nothing here locks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final

from michelangelo.blobs import reading
from michelangelo.blobs.blob_store import CHUNK_BYTES, Blob, digest_of, parse_digest
from michelangelo.errors import StorageError

__all__ = ["LocalBlobStore"]

_STALE_SECONDS: Final = 24 * 3600.0
"""A temporary file as old as this belongs to a writer that was killed."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SHARD: Final = re.compile(r"[0-9a-f]{2}\Z")
_REST: Final = re.compile(r"[0-9a-f]{62}\Z")


class LocalBlobStore:
    """`sync=True` makes each blob survive a loss of power (fsync of file and folder) before it is acknowledged."""

    def __init__(self, root: str | PathLike[str], *, sync: bool = False) -> None:
        self.root = Path(root).absolute()
        self.sync = sync
        self._temporary = self.root / "tmp"
        with _storage_errors(f"the blob folder {self.root}"):
            self._temporary.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, data: bytes) -> Blob:
        digest = digest_of(data)
        target = self._target(digest)
        if not _has_size(target, len(data)):
            with _storage_errors(f"blob {digest}"):
                self._write(lambda file: _write_all(file, data), lambda: target)
        return Blob(digest, len(data))

    def put_file(self, source: str | PathLike[str] | BinaryIO) -> Blob:
        if isinstance(source, str | PathLike):
            with _storage_errors(f"a blob from {os.fspath(source)}"), open(source, "rb") as file:
                return self._put_stream(file)
        with _storage_errors("a blob from a stream"):
            return self._put_stream(source)

    def get(self, digest: str) -> bytes:
        with self.open(digest) as file:
            return file.read()

    def open(self, digest: str) -> BinaryIO:
        path = self.path(digest)
        with _storage_errors(f"blob {digest}"):
            return reading.checked(open(path, "rb", buffering=0), digest, str(self.root))

    def path(self, digest: str) -> str:
        target = self._target(digest)
        if not target.exists():
            raise StorageError(f"blob {digest} is not in {self.root}")
        return str(target)

    def has(self, digest: str) -> bool:
        return self._target(digest).exists()

    def delete(self, digest: str) -> None:
        with _storage_errors(f"blob {digest}"):
            self._target(digest).unlink(missing_ok=True)

    def iterate(self) -> Iterator[Blob]:
        for shard in self.root.iterdir():
            if not _SHARD.match(shard.name):
                continue
            for entry in os.scandir(shard):
                if _REST.match(entry.name):
                    try:
                        yield Blob(f"sha256:{shard.name}{entry.name}", entry.stat().st_size)
                    except FileNotFoundError:
                        continue

    def remove_stale(self, *, now: float | None = None) -> int:
        """Remove temporary files that killed writers left a day ago or earlier; how many they were."""
        oldest = (time.time() if now is None else now) - _STALE_SECONDS
        stale = [entry for entry in self._temporary.iterdir() if entry.stat().st_mtime < oldest]
        for entry in stale:
            entry.unlink(missing_ok=True)
        return len(stale)

    def close(self) -> None:
        return

    def _target(self, digest: str) -> Path:
        name = parse_digest(digest)
        return self.root / name[:2] / name[2:]

    def _put_stream(self, source: BinaryIO) -> Blob:
        sha = hashlib.sha256()
        size = 0

        def copy(file: BinaryIO) -> None:
            nonlocal size
            while chunk := source.read(CHUNK_BYTES):
                sha.update(chunk)
                size += len(chunk)
                _write_all(file, chunk)

        self._write(copy, lambda: self._target("sha256:" + sha.hexdigest()))
        return Blob("sha256:" + sha.hexdigest(), size)

    def _write(self, fill: Callable[[BinaryIO], None], target_of: Callable[[], Path]) -> None:
        """Fill a temporary file and rename it to its place, which may be known only afterwards."""
        temporary = self._temporary / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
            with open(descriptor, "wb", buffering=0) as file:
                fill(file)
                if self.sync:
                    os.fsync(descriptor)
            target = target_of()
            target.parent.mkdir(exist_ok=True, mode=0o700)
            os.replace(temporary, target)
            if self.sync:
                _sync_folder(target.parent)
                _sync_folder(self.root)
        finally:
            temporary.unlink(missing_ok=True)


def _write_all(file: BinaryIO, data: bytes) -> None:
    """An unbuffered write may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _has_size(path: Path, size: int) -> bool:
    """A blob cut short by a loss of power is written again."""
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _storage_errors:
    """OSError (disk full, no permission, a folder that is gone) as StorageError."""

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            advice = "; the disk is full: free some space and try again" if error.errno in _FULL else ""
            raise StorageError(f"cannot store or read {self._subject}: {error}{advice}") from error
