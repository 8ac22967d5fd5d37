"""Bytes to and from an object of S3: uploads in parts, reads that survive a broken connection, copies onto itself.

One part is in memory at a time. An upload that fails is aborted, and its object does not appear. It knows no store.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import botocore.exceptions

from michelangelo.blobs.blob_store import Blob
from michelangelo.blobs.s3_requests import Missing, Requests
from michelangelo.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["PART_BYTES", "Body", "Upload", "refresh"]

PART_BYTES: Final = 16 << 20
_MAX_PARTS: Final = 10_000
_MAX_COPY_BYTES: Final = 5 << 30


class Upload:
    """One object. The bytes must be those of `blob`: a file that changes meanwhile is refused."""

    def __init__(self, requests: Requests, bucket: str, key: str, blob: Blob) -> None:
        self._requests = requests
        self._place: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._blob = blob
        self._subject = f"blob {blob.digest}"
        self._sha = hashlib.sha256()

    def send(self, source: BinaryIO) -> None:
        """Raises StorageError; then there is no object."""
        size = max(PART_BYTES, -(-self._blob.size // _MAX_PARTS))
        if self._blob.size <= size:
            data = self._read(source, size + 1)
            self._check()
            self._requests("put_object", self._subject, **self._place, Body=data)
            return
        upload = self._requests("create_multipart_upload", self._subject, **self._place)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            while data := self._read(source, size):
                number = len(parts) + 1
                sent = self._requests(
                    "upload_part", self._subject, **self._place, UploadId=upload, PartNumber=number, Body=data
                )
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            self._check()
            self._complete(upload, parts)
        except BaseException:
            with contextlib.suppress(StorageError):
                self.abort(self._requests, self._place["Bucket"], self._place["Key"], upload)
            raise

    @staticmethod
    def abort(requests: Requests, bucket: str, key: str, upload: str) -> None:
        try:
            requests("abort_multipart_upload", "an upload", retried=False, Bucket=bucket, Key=key, UploadId=upload)
        except Missing:
            return

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> None:
        _complete(self._requests, self._place, upload, parts, self._subject)

    def _read(self, source: BinaryIO, size: int) -> bytes:
        data = b""
        while len(data) < size and (chunk := source.read(size - len(data))):
            data = data + chunk if data else chunk
        self._sha.update(data)
        return data

    def _check(self) -> None:
        if "sha256:" + self._sha.hexdigest() != self._blob.digest:
            raise StorageError(
                f"{self._subject} changed while it was being stored; write the file first, then store it"
            )


class Body(io.RawIOBase):
    """The bytes of an object, in order; after a broken connection it goes on where it was."""

    def __init__(self, requests: Requests, subject: str, **place: Any) -> None:
        """Raises Missing, StorageError."""
        self._requests = requests
        self._subject = subject
        self._place: dict[str, Any] = place
        self._offset = 0
        answer = requests("get_object", subject, **self._place)
        self._size = int(answer["ContentLength"])
        self._stream: Any = answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._offset >= self._size or not len(view):
            return 0
        try:
            data: bytes = self._requests.patiently(lambda: self._some(len(view)), self._subject)
        except Missing as error:
            raise StorageError(f"{self._subject} was deleted while it was being read") from error
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()

    def _some(self, size: int) -> bytes:
        if self._stream is None:
            place = {**self._place, "Range": f"bytes={self._offset}-"}
            self._stream = self._requests.send("get_object", **place)["Body"]
        try:
            data: bytes = self._stream.read(size)
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            self._drop()
            raise botocore.exceptions.ResponseStreamingError(error=error) from error
        if not data:
            self._drop()
            raise botocore.exceptions.IncompleteReadError(actual_bytes=self._offset, expected_bytes=self._size)
        return data

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def refresh(requests: Requests, bucket: str, key: str, size: int) -> None:
    """Copy an object onto itself, which makes it young. Raises Missing, StorageError."""
    place: dict[str, Any] = {"Bucket": bucket, "Key": key}
    source: dict[str, Any] = {"CopySource": {"Bucket": bucket, "Key": key}}
    subject = f"the object {key}"
    if size < _MAX_COPY_BYTES:
        requests("copy_object", subject, **place, **source, MetadataDirective="REPLACE")
        return
    upload = requests("create_multipart_upload", subject, **place)["UploadId"]
    parts: list[dict[str, Any]] = []
    for start in range(0, size, _MAX_COPY_BYTES):
        reach = f"bytes={start}-{min(start + _MAX_COPY_BYTES, size) - 1}"
        number = len(parts) + 1
        copied = requests(
            "upload_part_copy", subject, **place, **source, CopySourceRange=reach, UploadId=upload, PartNumber=number
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    _complete(requests, place, upload, parts, subject)


def _complete(
    requests: Requests, place: dict[str, Any], upload: str, parts: list[dict[str, Any]], subject: str
) -> None:
    try:
        requests("complete_multipart_upload", subject, **place, UploadId=upload, MultipartUpload={"Parts": parts})
    except StorageError as error:
        # Its answer may have been lost, and the upload be complete: then it is unknown when asked again.
        if "NoSuchUpload" not in str(error):
            raise
        try:
            requests("head_object", subject, **place)
        except Missing:
            raise error from None
