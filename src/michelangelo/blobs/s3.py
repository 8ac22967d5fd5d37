"""Blobs in a bucket of an S3-compatible store: `<prefix>/<two hex>/<sixty-two hex>`.

A PUT and a multipart upload make an object appear whole or not at all. What is there is not uploaded again; when it was
written more than REFRESH_SECONDS ago, it is copied onto itself, which makes it young. Memory stays bounded: one part.

How `discard` and writers agree, without locks. A collector first writes a marker that names the blobs that it condemns,
then looks at each once more and deletes those that are still old, then removes the marker. S3 is strongly consistent.

* Who finds a blob old copies it, then waits until no marker names it, then looks whether it is there. If the collector
  looked after the copy, it found the blob young and left it. If it looked before, its marker was there before the copy:
  the writer waits for its removal, which comes after the deletion, and sees the truth.
* Who finds a blob missing waits until no marker names it, and uploads then. A deletion that could still strike belongs
  to a marker that was there before the blob was missed, for what is written after is young to every later look.
* Who finds a blob young does nothing: it stays young to every collector for the grace less REFRESH_SECONDS.

A collector deletes only in the first half of its marker's life, and never sends a deletion twice; when an answer stays
out the marker is left, and runs out. So no deletion is on its way when nobody waits for it any more.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, BinaryIO, Final, cast

from michelangelo.blobs import reading
from michelangelo.blobs.blob_store import CHUNK_BYTES, Blob, digest_of, parse_digest
from michelangelo.blobs.s3_requests import Missing, Requests, answered_at
from michelangelo.blobs.s3_transfer import Body, Upload, refresh
from michelangelo.errors import StorageError

__all__ = ["REFRESH_SECONDS", "S3BlobStore"]

REFRESH_SECONDS: Final = 900.0
"""What is younger need not be touched. Together with the time from a put to the write of the reference it must be less
than the youngest age at which blobs are collected (app/blob_collector.py: an hour)."""
_MARKER_SECONDS: Final = 120.0
_BATCH: Final = 100
_SPOOL_BYTES: Final = 16 << 20
_RESOLUTION_SECONDS: Final = 1.0
"""S3 cuts times to seconds."""
_NAME: Final = re.compile(r"([0-9a-f]{2})/([0-9a-f]{62})")
_PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class _Found:
    size: int
    modified: float
    answered: float


class S3BlobStore:
    """`bucket` must exist. `sleep` waits between attempts (seconds)."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        credentials: Mapping[str, str] | None = None,
        patience_seconds: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`credentials` by the names of the environment's variables (s3_requests.CREDENTIALS); None: those of the
        environment, as all AWS programs find them. `patience_seconds`: how long a request is tried again."""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._sleep = sleep
        self._requests = Requests(self.url, credentials, patience_seconds=patience_seconds, sleep=sleep)

    def put(self, data: bytes) -> Blob:
        return self._store(Blob(digest_of(data), len(data)), io.BytesIO(data))

    def put_file(self, source: str | PathLike[str] | BinaryIO) -> Blob:
        try:
            if isinstance(source, str | PathLike):
                with open(source, "rb") as file:
                    return self._put_seekable(file)
            if source.seekable():
                return self._put_seekable(source)
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
                while chunk := source.read(CHUNK_BYTES):
                    spool.write(chunk)
                spool.seek(0)
                return self._put_seekable(cast(BinaryIO, spool))
        except OSError as error:
            raise StorageError(f"cannot store a blob from {source} in {self.url}: {error}") from error

    def get(self, digest: str) -> bytes:
        with self.open(digest) as file:
            return file.read()

    def open(self, digest: str) -> BinaryIO:
        key = self._key(digest)
        try:
            body = Body(self._requests, f"blob {digest}", Bucket=self._bucket, Key=key)
        except Missing as error:
            raise StorageError(f"blob {digest} is not in {self.url}; run the step again that made it") from error
        return reading.checked(cast(BinaryIO, body), digest, self.url)

    def has(self, digest: str) -> bool:
        return self._find(digest) is not None

    def touch(self, digest: str) -> bool:
        return self._touch(digest, self._find(digest))

    def delete(self, digest: str) -> None:
        self._delete(self._key(digest), f"blob {digest}")

    def iterate(self) -> Iterator[Blob]:
        for blob, _ in self.ages():
            yield blob

    def close(self) -> None:
        self._requests.close()

    # --- Collectable ---

    def now(self) -> float:
        answer = self._requests("list_objects_v2", "the clock", Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        return answered_at(answer)

    def ages(self) -> Iterator[tuple[Blob, float]]:
        for entry, _ in self._list(""):
            match = self._blob_name(entry["Key"])
            if match is not None:
                yield Blob(f"sha256:{match[1]}{match[2]}", int(entry["Size"])), entry["LastModified"].timestamp()

    def discard(self, digests: Sequence[str], untouched_since: float) -> list[str]:
        removed: list[str] = []
        for start in range(0, len(digests), _BATCH):
            batch = digests[start : start + _BATCH]
            deadline = time.monotonic() + _MARKER_SECONDS / 2
            marker = f"{self._prefix}condemned/{secrets.token_hex(16)}"
            self._write(marker, json.dumps(list(batch)).encode(), "the list of condemned blobs")
            for digest in batch:
                found = self._find(digest)
                if time.monotonic() > deadline:
                    return removed  # the marker runs out by itself; the next pass goes on
                if found is not None and found.modified + _RESOLUTION_SECONDS < untouched_since:
                    self._delete(self._key(digest), f"blob {digest}", retried=False)
                    removed.append(digest)
            self._delete(marker, "the list of condemned blobs")
        return removed

    def remove_stale(self, untouched_since: float) -> int:
        removed = 0
        for entry, answered in list(self._list("condemned/")):
            if entry["LastModified"].timestamp() < answered - 2 * _MARKER_SECONDS:
                self._delete(entry["Key"], "a list of condemned blobs")
        answer = self._requests(
            "list_multipart_uploads", "unfinished uploads", Bucket=self._bucket, Prefix=self._prefix
        )
        for upload in answer.get("Uploads") or ():
            if self._blob_name(upload["Key"]) and upload["Initiated"].timestamp() < untouched_since:
                Upload.abort(self._requests, self._bucket, upload["Key"], upload["UploadId"])
                removed += 1
        return removed

    def join(self, platform: str, description: str) -> None:
        if platform not in self.platforms():
            self._write(f"{self._prefix}platforms/{platform}", description.encode(), "the note of its platforms")

    def platforms(self) -> dict[str, str]:
        found = {}
        for entry, _ in self._list("platforms/"):
            found[str(entry["Key"]).rpartition("/")[2]] = (self._read(entry["Key"]) or b"").decode("utf-8", "replace")
        return found

    # --- writing ---

    def _put_seekable(self, file: BinaryIO) -> Blob:
        sha, size, start = hashlib.sha256(), 0, file.tell()
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
            size += len(chunk)
        file.seek(start)
        return self._store(Blob("sha256:" + sha.hexdigest(), size), file)

    def _store(self, blob: Blob, source: BinaryIO) -> Blob:
        start = source.tell()
        while True:
            found = self._find(blob.digest)
            if found is not None and found.size == blob.size and self._touch(blob.digest, found):
                return blob
            self._await_acquittal(blob.digest)
            source.seek(start)
            Upload(self._requests, self._bucket, self._key(blob.digest), blob).send(source)
            if found is None:
                return blob
            # It took the place of a damaged one, which a collector may have looked at.
            self._await_acquittal(blob.digest)
            if self.has(blob.digest):
                return blob

    def _touch(self, digest: str, found: _Found | None) -> bool:
        if found is None:
            return False
        if found.answered - found.modified < REFRESH_SECONDS:
            return True
        try:
            refresh(self._requests, self._bucket, self._key(digest), found.size)
        except Missing:
            return False
        self._await_acquittal(digest)
        return self.has(digest)

    def _await_acquittal(self, digest: str) -> None:
        """Until no collector may delete this blob any more: seconds, or as long as a dead collector's marker lives."""
        pauses = iter(_PAUSES_SECONDS)
        while self._is_condemned(digest):
            self._sleep(next(pauses, _PAUSES_SECONDS[-1]))

    def _is_condemned(self, digest: str) -> bool:
        for entry, answered in self._list("condemned/"):
            if answered - entry["LastModified"].timestamp() < _MARKER_SECONDS:
                content = self._read(entry["Key"])
                if content is not None and digest in json.loads(content):
                    return True
        return False

    # --- single requests ---

    def _find(self, digest: str) -> _Found | None:
        key = self._key(digest)
        try:
            answer = self._requests("head_object", f"blob {digest}", Bucket=self._bucket, Key=key)
        except Missing:
            return None
        return _Found(int(answer["ContentLength"]), answer["LastModified"].timestamp(), answered_at(answer))

    def _write(self, key: str, data: bytes, subject: str) -> None:
        self._requests("put_object", subject, Bucket=self._bucket, Key=key, Body=data)

    def _read(self, key: str) -> bytes | None:
        try:
            with Body(self._requests, f"the object {key}", Bucket=self._bucket, Key=key) as body:
                return body.read()
        except Missing:
            return None

    def _delete(self, key: str, subject: str, *, retried: bool = True) -> None:
        try:
            self._requests("delete_object", subject, retried=retried, Bucket=self._bucket, Key=key)
        except Missing:
            return

    def _list(self, folder: str) -> Iterator[tuple[dict[str, Any], float]]:
        """The objects whose keys begin so, each with the time of the answer that named it."""
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + folder}
        while True:
            answer = self._requests("list_objects_v2", f"the list of {folder or 'blobs'}", **arguments)
            for entry in answer.get("Contents") or ():
                yield entry, answered_at(answer)
            if not answer.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = answer["NextContinuationToken"]

    def _blob_name(self, key: str) -> re.Match[str] | None:
        """Other keys are not ours: a prefix may lie within that of somebody else."""
        return _NAME.fullmatch(key, len(self._prefix)) if key.startswith(self._prefix) else None

    def _key(self, digest: str) -> str:
        name = parse_digest(digest)
        return f"{self._prefix}{name[:2]}/{name[2:]}"
