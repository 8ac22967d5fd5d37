"""Which blob store a URL means. Only what the URL needs is imported."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl, unquote, urlsplit

from michelangelo.blobs.blob_store import BlobStore
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.errors import SettingsError, StorageError

__all__ = ["open_blob_store"]


def open_blob_store(url: str, credentials: Mapping[str, str] | None = None) -> BlobStore:
    """A folder (`/path`, `file:///path`), a bucket (`s3://bucket/prefix`), or what fsspec knows (`memory://name` …).

    With `file:///path?sync=true` each blob survives a loss of power before it is acknowledged, and with
    `s3://bucket?patience=30` a request is tried again for so many seconds; these are part of the URL so that every
    process that is told of the store keeps to them. `credentials` are those of S3, by the names that the environment
    has for them (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION); without,
    they are the environment's. They are never part of a URL, which is logged and passed on.

    A store other than a folder is opened by each process for itself. Raises SettingsError for a URL that means nothing,
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
    if "@" in rest.partition("/")[0]:
        raise SettingsError(
            f"the URL of the blob store ({scheme}://…) holds a user or password; take them out and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if scheme == "s3":
        return _bucket(url, credentials)
    remote = importlib.import_module("michelangelo.blobs.remote")
    return cast(BlobStore, remote.RemoteBlobStore(url))


def _bucket(url: str, credentials: Mapping[str, str] | None) -> BlobStore:
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, unquote(parts.path).strip("/")
    if not bucket:
        raise SettingsError(f"{url} names no bucket; write s3://bucket/prefix")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    patience = options.pop("patience", "30")
    if options or not patience.isascii() or not patience.isdigit():
        raise SettingsError(f"s3://{bucket}/{prefix}: the only option of a bucket is ?patience=SECONDS")
    try:
        s3 = importlib.import_module("michelangelo.blobs.s3")
    except ImportError as error:
        raise StorageError(
            f"{url} needs libraries that are not installed: pip install 'michelangelo-oss[s3]' ({error})"
        ) from error
    return cast(BlobStore, s3.S3BlobStore(bucket, prefix, credentials=credentials, patience_seconds=float(patience)))
