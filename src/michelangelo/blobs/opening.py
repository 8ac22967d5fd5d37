"""Which blob store a URL means. Only what the URL needs is imported."""

from __future__ import annotations

import importlib
import os
from typing import cast
from urllib.parse import unquote, urlsplit

from michelangelo.blobs.blob_store import BlobStore
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.errors import SettingsError

__all__ = ["open_blob_store"]


def open_blob_store(url: str) -> BlobStore:
    """A folder (`/path`, `file:///path`) or what fsspec knows (`s3://bucket/prefix`, `memory://name` …).

    With `file:///path?sync=true` each blob survives a loss of power before it is acknowledged; it is part of the URL so
    that every process that is told of the store keeps to it. Raises SettingsError for a URL that means nothing,
    StorageError when the store cannot be opened.
    """
    scheme, separator, rest = url.partition("://")
    if not url:
        raise SettingsError("the URL of the blob store is empty; give a folder or a URL such as s3://bucket/prefix")
    if not separator:
        return LocalBlobStore(os.path.expanduser(url))
    if scheme == "file":
        parts = urlsplit(url)
        if not rest.startswith("/"):
            raise SettingsError(f"{url} is no file URL; write file:///absolute/path")
        if parts.query not in ("", "sync=true"):
            raise SettingsError(f"{url}: the only option of a folder is ?sync=true")
        return LocalBlobStore(unquote(parts.path), sync=bool(parts.query))
    remote = importlib.import_module("michelangelo.blobs.remote")
    return cast(BlobStore, remote.RemoteBlobStore(url))
