"""Blobs as codecs write and read them: small ones together at the end, large ones in pieces, none unchecked.

What is written first waits in memory, so that a value of which a later part cannot be carried leaves nothing; what is
too large for that goes to the store at once, whole. Nothing here knows a type.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final, cast

from michelangelo.blobs.blob_store import CHUNK_BYTES, Blob, BlobStore, LocalPaths, digest_of
from michelangelo.errors import IntegrityError, StorageError
from michelangelo.uniflow import scratch

__all__ = ["SMALL_BYTES", "Staging", "checked_path", "copy", "discard_damaged"]

SMALL_BYTES: Final = 1 << 20
"""A file of at most so much may be read as a whole."""
_STAGED_BYTES: Final = 16 << 20


class Staging:
    """Blobs of one encoding on their way to the store."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._waiting: list[bytes] = []
        self._size = 0

    def put(self, data: bytes) -> Blob:
        if len(data) + self._size > _STAGED_BYTES:
            return self._blobs.put(data)
        self._waiting.append(data)
        self._size += len(data)
        return Blob(digest_of(data), len(data))

    def put_written(self, write: Callable[[BinaryIO], Any]) -> Blob:
        """What `write` writes into the file that it is given."""
        with tempfile.SpooledTemporaryFile(max_size=max(1, _STAGED_BYTES - self._size), dir=scratch.folder()) as file:
            write(cast(BinaryIO, file))
            file.seek(0)
            if isinstance(getattr(file, "_file", None), io.BytesIO):
                return self.put(file.read())
            return self._blobs.put_file(cast(BinaryIO, file))

    def flush(self) -> None:
        """Store what waits. StorageError."""
        for data in self._waiting:
            self._blobs.put(data)
        self._waiting.clear()


@contextlib.contextmanager
def checked_path(blobs: BlobStore, digest: str) -> Iterator[str]:
    """A file of this machine with the bytes of a blob, checked before it is given; for reading only.

    It may be gone after the block (a memory map of it stays). StorageError, IntegrityError.
    """
    if isinstance(blobs, LocalPaths):
        with blobs.open(digest) as file:
            while file.read(CHUNK_BYTES):
                pass
        yield blobs.path(digest)
        return
    with tempfile.TemporaryDirectory(prefix="uniflow-", dir=scratch.folder()) as folder:
        path = os.path.join(folder, "blob")
        copy(blobs, digest, path)
        yield path


def copy(blobs: BlobStore, digest: str, target: str) -> None:
    """Write the bytes of a blob into the new file `target`, which is removed when they are damaged or not there."""
    try:
        with blobs.open(digest) as source, open(target, "xb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)
    except OSError as error:
        raise StorageError(f"cannot copy blob {digest} to {target}: {error}") from error
    except StorageError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        raise


def discard_damaged(blobs: BlobStore, digests: Iterable[str]) -> None:
    """Delete the blobs whose bytes, read once more, are still not those of their digests.

    A store does not write again what it has; without this, the step that makes such a blob anew would not mend it.
    """
    for digest in dict.fromkeys(digests):
        try:
            with blobs.open(digest) as file:
                while file.read(CHUNK_BYTES):
                    pass
        except IntegrityError:
            with contextlib.suppress(StorageError):
                blobs.delete(digest)
        except StorageError:
            continue
