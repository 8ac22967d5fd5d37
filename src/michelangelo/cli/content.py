"""Logs and blobs: what is no object. Two twins, as with the client: over HTTP, and in the home folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from michelangelo import errors
from michelangelo.blobs import reading
from michelangelo.blobs.blob_store import BlobStore, parse_digest
from michelangelo.client import download
from michelangelo.client.transport import Transport

if TYPE_CHECKING:
    from michelangelo.app.blob_collector import BlobCollector

__all__ = ["Content", "EmbeddedContent", "HttpContent"]

_COLLECT_SECONDS: Final = 6 * 3600.0
"""A pass over very many blobs takes its time."""


class Content(Protocol):
    """Logs and blobs of one platform."""

    def log(self, namespace: str, run: str, task_run: str, *, offset: int = 0) -> bytes:
        """What an attempt has printed so far, from byte `offset`; empty while there is none."""
        ...

    def put_blob(self, digest: str, data: bytes) -> None:
        """Store `data`, which must be what `digest` says."""
        ...

    def open_blob(self, digest: str) -> BinaryIO:
        """A reader of the bytes, in order; IntegrityError at its end when they are not those of `digest`. StorageError
        or NotFoundError when there is no such blob."""
        ...

    def collect(self, *, age_seconds: float, dry_run: bool) -> dict[str, int]:
        """Remove what nothing refers to and nobody has touched for that long; what that was, as counts."""
        ...


class HttpContent:
    """Through a server."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def log(self, namespace: str, run: str, task_run: str, *, offset: int = 0) -> bytes:
        try:
            return self.transport.send("GET", f"/logs/{namespace}/{run}/{task_run}", query={"offset": str(offset)})
        except errors.NotFoundError:
            return b""

    def put_blob(self, digest: str, data: bytes) -> None:
        path = f"/blobs/sha256/{parse_digest(digest)}"
        self.transport.send("PUT", path, body=data, content_type="application/octet-stream")

    def open_blob(self, digest: str) -> BinaryIO:
        raw = download.download(self.transport, f"/blobs/sha256/{parse_digest(digest)}")
        return reading.checked(raw, digest, self.transport.endpoint.server)

    def collect(self, *, age_seconds: float, dry_run: bool) -> dict[str, int]:
        query = {"olderThanSeconds": f"{age_seconds:.0f}", "dryRun": "true" if dry_run else "false"}
        patient = Transport(self.transport.endpoint, timeout_seconds=_COLLECT_SECONDS)
        try:
            found: dict[str, int] = json.loads(patient.send("POST", "/blobs/collect", query=query))
        finally:
            patient.close()
        return found


class EmbeddedContent:
    """In the folders of this machine."""

    def __init__(self, logs: Path, blobs: BlobStore, collector: BlobCollector) -> None:
        self._logs = logs
        self._blobs = blobs
        self._collector = collector

    def log(self, namespace: str, run: str, task_run: str, *, offset: int = 0) -> bytes:
        try:
            with (self._logs / namespace / run / f"{task_run}.log").open("rb") as file:
                file.seek(offset)
                return file.read()
        except FileNotFoundError:
            return b""

    def put_blob(self, digest: str, data: bytes) -> None:
        blob = self._blobs.put(data)
        if blob.digest != digest:
            raise errors.IntegrityError(f"the data's digest is {blob.digest}, not {digest}")

    def open_blob(self, digest: str) -> BinaryIO:
        return self._blobs.open(digest)

    def collect(self, *, age_seconds: float, dry_run: bool) -> dict[str, int]:
        return self._collector.collect(age_seconds=age_seconds, dry_run=dry_run).to_json()
