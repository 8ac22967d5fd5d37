"""Logs and blobs: what is no object. Two twins, as with the client: over HTTP, and in the home folder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from michelangelo import errors
from michelangelo.blobs.blob_store import BlobStore, parse_digest
from michelangelo.client.transport import Transport

__all__ = ["Content", "EmbeddedContent", "HttpContent"]


class Content(Protocol):
    """Logs and blobs of one platform."""

    def log(self, namespace: str, run: str, task_run: str, *, offset: int = 0) -> bytes:
        """What an attempt has printed so far, from byte `offset`; empty while there is none."""
        ...

    def put_blob(self, digest: str, data: bytes) -> None:
        """Store `data`, which must be what `digest` says."""
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


class EmbeddedContent:
    """In the folders of this machine."""

    def __init__(self, logs: Path, blobs: BlobStore) -> None:
        self._logs = logs
        self._blobs = blobs

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
