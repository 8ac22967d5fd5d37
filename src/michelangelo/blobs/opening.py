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


def open_blob_store(url: str, *, sync: bool = False) -> BlobStore:
    """A folder (`/path`, `file:///path`) or what fsspec knows (`s3://bucket/prefix`, `memory://name` …).

    `sync` applies to folders: each blob survives a loss of power before it is acknowledged. Raises SettingsError for
    a URL that means nothing, StorageError when the store cannot be opened.
    """
    scheme, separator, rest = url.partition("://")
    if not url:
        raise SettingsError("the URL of the blob store is empty; give a folder or a URL such as s3://bucket/prefix")
    if not separator:
        return LocalBlobStore(os.path.expanduser(url), sync=sync)
    if scheme == "file":
        path = unquote(urlsplit(url).path)
        if not rest.startswith("/"):
            raise SettingsError(f"{url} is no file URL; write file:///absolute/path")
        return LocalBlobStore(path, sync=sync)
    remote = importlib.import_module("michelangelo.blobs.remote")
    return cast(BlobStore, remote.RemoteBlobStore(url))
