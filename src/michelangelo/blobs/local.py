"""Blobs as files of a directory: `<two hex>/<sixty-two hex>`, read-only, without fsspec.

A blob appears whole or not at all: it is written to `tmp/` beside its final place and linked there. The time of a
file's last change is when its blob was written or touched last. A writer that finds its blob touches it under a shared
lock of the file; who discards it looks at that time and removes the file under an exclusive one. So a file that is
touched was not removed before, and one that is removed was not touched before: there is no moment between looking and
removing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final, cast

from michelangelo.blobs import reading
from michelangelo.blobs.blob_store import CHUNK_BYTES, Blob, digest_of, parse_digest
from michelangelo.errors import StorageError

__all__ = ["LocalBlobStore"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SHARD: Final = re.compile(r"[0-9a-f]{2}\Z")
_REST: Final = re.compile(r"[0-9a-f]{62}\Z")


class LocalBlobStore:
    """`sync=True` makes each blob survive a loss of power (fsync of file and folder) before it is acknowledged."""

    def __init__(self, root: str | PathLike[str], *, sync: bool = False) -> None:
        self.root = Path(root).absolute()
        self.sync = sync
        self._temporary = self.root / "tmp"
        self._platforms = self.root / "platforms"
        with _storage_errors(f"the blob folder {self.root}"):
            self._temporary.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, data: bytes) -> Blob:
        digest = digest_of(data)
        target = self._target(digest)
        with _storage_errors(f"blob {digest}"):
            if not _touch(target, len(data)):
                self._write(lambda file: _write_all(file, data), lambda: (target, len(data)))
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
            raise StorageError(f"blob {digest} is not in {self.root}; run the step again that made it")
        return str(target)

    def has(self, digest: str) -> bool:
        return self._target(digest).exists()

    def touch(self, digest: str) -> bool:
        target = self._target(digest)
        with _storage_errors(f"blob {digest}"):
            return _touch(target)

    def delete(self, digest: str) -> None:
        with _storage_errors(f"blob {digest}"):
            self._target(digest).unlink(missing_ok=True)

    def iterate(self) -> Iterator[Blob]:
        for blob, _ in self.ages():
            yield blob

    def now(self) -> float:
        """By the clock of the file system, which need not be this machine's."""
        with _storage_errors(f"the blob folder {self.root}"), tempfile.TemporaryFile(dir=self._temporary) as probe:
            return os.fstat(probe.fileno()).st_mtime

    def ages(self) -> Iterator[tuple[Blob, float]]:
        for shard in self.root.iterdir():
            if not _SHARD.match(shard.name):
                continue
            for entry in os.scandir(shard):
                if _REST.match(entry.name):
                    try:
                        status = entry.stat()
                    except FileNotFoundError:
                        continue
                    yield Blob(f"sha256:{shard.name}{entry.name}", status.st_size), status.st_mtime

    def discard(self, digests: Sequence[str], untouched_since: float) -> list[str]:
        removed = []
        for digest in digests:
            with _storage_errors(f"blob {digest}"):
                if _remove_older(self._target(digest), untouched_since):
                    removed.append(digest)
        return removed

    def remove_stale(self, untouched_since: float) -> int:
        removed = 0
        for entry in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < untouched_since:
                    entry.unlink()
                    removed += 1
        return removed

    def join(self, platform: str, description: str) -> None:
        with _storage_errors(f"the blob folder {self.root}"):
            self._platforms.mkdir(exist_ok=True, mode=0o700)
            (self._platforms / platform).write_text(description, "utf-8")

    def platforms(self) -> dict[str, str]:
        with _storage_errors(f"the blob folder {self.root}"):
            if not self._platforms.exists():
                return {}
            return {file.name: file.read_text("utf-8") for file in self._platforms.iterdir()}

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

        self._write(copy, lambda: (self._target("sha256:" + sha.hexdigest()), size))
        return Blob("sha256:" + sha.hexdigest(), size)

    def _write(self, fill: Callable[[BinaryIO], None], target_of: Callable[[], tuple[Path, int]]) -> None:
        """Fill a temporary file and put it in its place, which may be known only afterwards, with its size."""
        temporary = self._temporary / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
            with open(descriptor, "wb", buffering=0) as file:
                fill(file)
                if self.sync:
                    os.fsync(descriptor)
            target, size = target_of()
            target.parent.mkdir(exist_ok=True, mode=0o700)
            os.utime(temporary)  # so that it is young when it appears, however long the writing took
            _place(temporary, target, size)
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


def _touch(path: Path, size: int = -1) -> bool:
    """Make the file young; False when it is not there, or was cut short by a loss of power and has another `size`."""
    while (file := _locked(path, fcntl.LOCK_SH)) is not None:
        with file:
            if 0 <= size != os.fstat(file.fileno()).st_size:
                return False
            if _is_at(file, path):
                os.utime(file.fileno())
                return True
    return False


def _place(temporary: Path, target: Path, size: int) -> None:
    """Link the file to its place, where no other may be replaced but a damaged one: a file that somebody has locked
    must stay the one at its place."""
    while not _touch(target, size):
        try:
            os.link(temporary, target)
            return
        except FileExistsError:
            damaged = _locked(target, fcntl.LOCK_EX)
            if damaged is not None:
                with damaged:
                    if os.fstat(damaged.fileno()).st_size != size and _is_at(damaged, target):
                        os.replace(temporary, target)
                        return


def _remove_older(path: Path, untouched_since: float) -> bool:
    file = _locked(path, fcntl.LOCK_EX)
    if file is None:
        return False
    with file:
        if os.fstat(file.fileno()).st_mtime >= untouched_since or not _is_at(file, path):
            return False
        path.unlink()
        return True


def _locked(path: Path, how: int) -> BinaryIO | None:
    """The file, locked until it is closed; None when there is none."""
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    except FileNotFoundError:
        return None
    fcntl.flock(file, how)
    return cast(BinaryIO, file)


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether this very file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
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
