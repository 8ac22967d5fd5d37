"""Blobs wherever fsspec leads: any URL that it knows (gs://, hdfs://, memory:// …) but s3://, which s3.py serves.

A blob is written beside its place and moved, so that it appears whole. It is never collected: what fsspec offers has no
operation to make that safe with. fsspec is imported with this module, which `open_blob_store` imports for such a URL
only.
"""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import tempfile
from collections.abc import Iterator
from os import PathLike
from typing import Any, BinaryIO, Final, cast

import fsspec

from michelangelo.blobs import reading
from michelangelo.blobs.blob_store import CHUNK_BYTES, Blob, digest_of, parse_digest
from michelangelo.errors import StorageError

__all__ = ["RemoteBlobStore"]

_SPOOL_BYTES: Final = 64 << 20
_NAME: Final = re.compile(r"/([0-9a-f]{2})/([0-9a-f]{62})\Z")


class RemoteBlobStore:
    """`options` are those of the fsspec file system (endpoint, credentials …)."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url, **options)
        except (ImportError, ValueError, OSError) as error:
            raise StorageError(f"cannot open the blob store {url}: {error}") from error

    def put(self, data: bytes) -> Blob:
        return self._store(digest_of(data), len(data), io.BytesIO(data))

    def put_file(self, source: str | PathLike[str] | BinaryIO) -> Blob:
        if isinstance(source, str | PathLike):
            with self._errors(f"a blob from {source}"), open(source, "rb") as file:
                return self._put_seekable(file)
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
            with self._errors("a blob from a stream"):
                while chunk := source.read(CHUNK_BYTES):
                    spool.write(chunk)
                spool.seek(0)
            return self._put_seekable(cast(BinaryIO, spool))

    def get(self, digest: str) -> bytes:
        with self._errors(f"blob {digest}", digest):
            data: bytes = self._files.cat_file(self._path(digest))
        return reading.check(data, digest, self.url)

    def open(self, digest: str) -> BinaryIO:
        with self._errors(f"blob {digest}", digest):
            return reading.checked(self._files.open(self._path(digest), "rb"), digest, self.url)

    def has(self, digest: str) -> bool:
        with self._errors(f"blob {digest}"):
            return bool(self._files.exists(self._path(digest)))

    def touch(self, digest: str) -> bool:
        """These blobs have no age, and are never collected."""
        return self.has(digest)

    def delete(self, digest: str) -> None:
        with self._errors(f"blob {digest}"):
            try:
                self._files.rm_file(self._path(digest))
            except FileNotFoundError:
                return

    def iterate(self) -> Iterator[Blob]:
        with self._errors("the list of blobs"):
            try:
                found = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                found = {}
        for path, entry in found.items():
            match = _NAME.search(path)
            if match is not None:
                yield Blob(f"sha256:{match[1]}{match[2]}", int(entry["size"]))

    def close(self) -> None:
        return

    def _put_seekable(self, file: BinaryIO) -> Blob:
        sha = hashlib.sha256()
        size = 0
        with self._errors("a blob from a stream"):
            start = file.tell()
            while chunk := file.read(CHUNK_BYTES):
                sha.update(chunk)
                size += len(chunk)
            file.seek(start)
        return self._store("sha256:" + sha.hexdigest(), size, file)

    def _store(self, digest: str, size: int, source: BinaryIO) -> Blob:
        target = self._path(digest)
        with self._errors(f"blob {digest}"):
            if self._files.exists(target) and self._files.info(target)["size"] == size:
                return Blob(digest, size)
            temporary = f"{self._root}/tmp/{secrets.token_hex(16)}"
            try:
                self._files.makedirs(f"{self._root}/tmp", exist_ok=True)
                with self._files.open(temporary, "wb") as file:
                    while chunk := source.read(CHUNK_BYTES):
                        file.write(chunk)
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.mv(temporary, target)
            finally:
                if self._files.exists(temporary):
                    self._files.rm_file(temporary)
        return Blob(digest, size)

    def _path(self, digest: str) -> str:
        name = parse_digest(digest)
        return f"{self._root}/{name[:2]}/{name[2:]}"

    def _errors(self, subject: str, digest: str = "") -> _Errors:
        return _Errors(subject, self.url, digest)


class _Errors:
    """What fsspec and its file systems raise, as StorageError."""

    def __init__(self, subject: str, url: str, digest: str) -> None:
        self._subject, self._url, self._digest = subject, url, digest

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FileNotFoundError) and self._digest:
            raise StorageError(f"blob {self._digest} is not in {self._url}; run the step again that made it") from error
        if isinstance(error, OSError | ValueError | ImportError) and not isinstance(error, StorageError):
            raise StorageError(f"cannot store or read {self._subject} in {self._url}: {error}") from error
