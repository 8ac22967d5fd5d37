"""`File` and `Directory`: paths whose content goes from task to task as blobs.

    @uniflow.task
    def plot(scores: list[float]) -> uniflow.File:
        ...
        return uniflow.File("roc.svg")

A path alone is only text: another machine, or the next attempt, does not have the file. What a task receives is a
`File` whose bytes are in the blob store; `path` makes a private copy, `open` reads without one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import Any, BinaryIO, Self, cast

from michelangelo.blobs.blob_store import BlobStore
from michelangelo.errors import IntegrityError, StorageError
from michelangelo.uniflow import archive, content, scratch

__all__ = ["Directory", "File"]


class _Content:
    """A local path, or the blob that holds its content; the path of a blob is made when it is asked for."""

    def __init__(self, path: str | os.PathLike[str], *, name: str = "") -> None:
        self._path: str | None = os.path.abspath(path)
        self._blobs: BlobStore | None = None
        self._digest = ""
        self._size = -1
        self.name = name or os.path.basename(self._path)
        """The file name that copies get."""

    @classmethod
    def of_blob(cls, name: str, digest: str, size: int, blobs: BlobStore) -> Self:
        """Content that is in a blob store."""
        content = cls.__new__(cls)
        content._path, content._blobs, content._digest, content._size = None, blobs, digest, size
        content.name = os.path.basename(name) or "file"
        return content

    @property
    def path(self) -> str:
        """A path of this machine: the original, or a private copy that lives as long as the attempt (in plain Python,
        as long as this object)."""
        if self._path is None:
            folder = scratch.new_folder(self)
            try:
                self._path = self._unpack(os.path.join(folder, self.name))
            except IntegrityError:
                assert self._blobs is not None
                content.discard_damaged(self._blobs, [self._digest])
                raise
        return self._path

    def __fspath__(self) -> str:
        return self.path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and (self.name, self.digest) == (other.name, other.digest)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self._digest[:19] or self._path}>"

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the content."""
        raise NotImplementedError

    @property
    def blob(self) -> tuple[str, int] | None:
        """Digest and size of the blob that this content came from, while nobody has asked for a path to write to."""
        return (self._digest, self._size) if self._path is None else None

    def _unpack(self, target: str) -> str:
        raise NotImplementedError

    def _reader(self) -> BinaryIO:
        assert self._blobs is not None
        return self._blobs.open(self._digest)


class File(_Content):
    """A file whose content is a blob."""

    @property
    def digest(self) -> str:
        if self._path is None:
            return self._digest
        with self.open() as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # BinaryIO does

    def open(self) -> BinaryIO:
        """A reader of the content. StorageError when the file or blob is gone."""
        if self._path is None:
            return self._reader()
        try:
            return open(self._path, "rb")
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error}") from error

    def read_bytes(self) -> bytes:
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def _unpack(self, target: str) -> str:
        with self._reader() as source, open(target, "xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        return target


class Directory(_Content):
    """A directory whose content is one blob: regular files, folders, and links inside of it."""

    @property
    def digest(self) -> str:
        if self._path is None:
            return self._digest
        sha = hashlib.sha256()
        archive.pack(self._path, cast(BinaryIO, _HashWriter(sha)))
        return "sha256:" + sha.hexdigest()

    def _unpack(self, target: str) -> str:
        with self._reader() as source:
            archive.unpack(source, target)
            source.read()  # to the end, where the digest is checked
        return target


class _HashWriter:
    """A file that keeps nothing but the hash of what is written."""

    def __init__(self, sha: Any) -> None:
        self._sha = sha

    def write(self, data: bytes) -> int:
        self._sha.update(data)
        return len(data)
