"""Blobs and logs over HTTP, for clients on other machines. Both are streams of bytes of any length; it looks into
none."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import authorization
from michelangelo.apiserver.http import negotiation, queries, replies
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.meta import names, status

__all__ = ["MAX_BLOB_BYTES", "Content"]

MAX_BLOB_BYTES: Final = 64 * 1024**3
_CHUNK: Final = 256 * 1024
_SPOOL: Final = 4 * 1024 * 1024
"""Uploads up to so many bytes stay in memory until they are stored."""
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_LOG_PERIOD_SECONDS: Final = 0.25
"""How often a log that is followed is looked at. Files of other processes tell nobody that they have grown."""


class Content:
    def __init__(
        self,
        api: ApiServer,
        blobs: BlobStore,
        logs: Path,
        *,
        closing: asyncio.Event,
        max_blob_bytes: int = MAX_BLOB_BYTES,
    ) -> None:
        """`logs`: the folder of `<namespace>/<run>/<taskrun>.log`. `closing` ends streams that follow a log."""
        self._api = api
        self._blobs = blobs
        self._logs = logs
        self._closing = closing
        self._max = max_blob_bytes

    async def blob(self, request: Request) -> Response:
        """GET, HEAD, PUT of /blobs/sha256/HEX."""
        authorization.authorize_blobs(request.scope["identity"])
        request.scope["resource"] = "blobs"
        digest = request.path_params["digest"]
        if not _HEX.fullmatch(digest):
            raise errors.BadRequestError(f"{digest[:80]!r} is no SHA-256 digest: 64 characters of 0-9 and a-f")
        name = f"sha256:{digest}"
        if request.method == "PUT":
            return await self._put(request, digest)
        if not await asyncio.to_thread(self._blobs.has, name):
            raise errors.NotFoundError(f"there is no blob {name}")
        if request.method == "HEAD":
            return Response(headers={"etag": f'"{digest}"'}, media_type="application/octet-stream")
        if request.method != "GET":
            raise status.method_not_allowed("", "blobs", request.method)
        blob = await asyncio.to_thread(self._blobs.open, name)
        return StreamingResponse(_read(blob), headers={"etag": f'"{digest}"'}, media_type="application/octet-stream")

    async def log(self, request: Request) -> Response:
        """GET /logs/NAMESPACE/RUN/TASKRUN?offset=N&follow=true."""
        request.scope["resource"] = "logs"
        parts = [request.path_params[name] for name in ("namespace", "run", "taskrun")]
        for part in parts:
            if names.check_dns_subdomain(part):
                raise errors.NotFoundError(f"there is no log {'/'.join(parts)[:300]}")
        authorization.authorize_logs(request.scope["identity"], parts[0], parts[1])
        if request.method not in ("GET", "HEAD"):
            raise status.method_not_allowed("", "logs", request.method)
        offset = request.query_params.get("offset", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 19):
            raise errors.BadRequestError(f"offset: Invalid value: {offset[:80]!r}: must be a number of bytes")
        path = self._logs.joinpath(*parts[:2], f"{parts[2]}.log")
        follow = queries.truth(request.query_params, "follow")
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError:
            message = f"there is no log {'/'.join(parts)}: nothing was printed yet, or it was removed"
            raise errors.NotFoundError(message) from None
        request.scope["verb"] = "follow" if follow else "get"
        file.seek(int(offset))
        return StreamingResponse(
            self._follow(file, *parts) if follow else _read(file), media_type="text/plain; charset=utf-8"
        )

    async def _put(self, request: Request, digest: str) -> Response:
        size, hashed = 0, hashlib.sha256()
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as spool:
            async for chunk in request.stream():
                size += len(chunk)
                if size > self._max:
                    raise errors.RequestTooLargeError(f"the blob is larger than {self._max} bytes")
                # A chunk is what came off the network, 64 KiB or so: not worth a thread.
                spool.write(chunk)
                hashed.update(chunk)
            if hashed.hexdigest() != digest:
                found = f"sha256:{hashed.hexdigest()}"
                raise errors.BadRequestError(f"the body's digest is {found}, not {digest}; nothing was stored")
            spool.seek(0)
            await asyncio.to_thread(self._blobs.put_file, cast("BinaryIO", spool))
        content = {"digest": f"sha256:{digest}", "size": size}
        return replies.document(content, negotiation.JSON, 201)

    async def _follow(self, file: BinaryIO, namespace: str, run: str, task_run: str) -> AsyncIterator[bytes]:
        """The log as it grows, until what writes it has ended."""
        try:
            yield b""
            while True:
                # Asked before reading: what was printed before the end is then in the file.
                ended = self._has_ended(namespace, run, task_run)
                chunk = await asyncio.to_thread(file.read, _CHUNK)
                if chunk:
                    yield chunk
                    continue
                if ended:
                    return
                try:
                    await asyncio.wait_for(self._closing.wait(), _LOG_PERIOD_SECONDS)
                except TimeoutError:
                    continue
                return
        finally:
            file.close()

    def _has_ended(self, namespace: str, run: str, task_run: str) -> bool:
        for kind, name in (("TaskRun", task_run), ("PipelineRun", run)):
            try:
                obj = self._api.get(registry.get(kind), namespace, name)
            except errors.NotFoundError:
                continue
            # Both kinds say when they ended; a TaskRun does so in every state but Running.
            return bool((obj.get("status") or {}).get("endTime"))
        return True


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
    finally:
        file.close()
