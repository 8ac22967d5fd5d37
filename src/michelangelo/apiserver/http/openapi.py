"""The OpenAPI documents over HTTP: an index whose URLs hold a digest of what they lead to, so that clients keep it for
good.

The documents are computed once per process, when first asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

import michelangelo
from michelangelo import errors
from michelangelo.api.v2 import openapi, swagger
from michelangelo.apiserver.http import negotiation, replies

__all__ = ["v2", "v3", "v3_of"]

_V2_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


@dataclass(frozen=True, slots=True)
class _Rendered:
    body: bytes
    digest: str


async def v3(request: Request) -> Response:
    """/openapi/v3: the index."""
    rendered = await asyncio.to_thread(_all)
    paths = {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={one.digest}"} for path, one in rendered.items()}
    return replies.document({"paths": paths}, negotiation.JSON)


async def v3_of(request: Request) -> Response:
    """/openapi/v3/apis/GROUP/VERSION."""
    rendered = (await asyncio.to_thread(_all)).get(request.path_params["path"])
    if rendered is None:
        raise errors.NotFoundError("the server could not find the requested resource")
    headers = {"etag": f'"{rendered.digest}"', "vary": "Accept"}
    if request.query_params.get("hash") == rendered.digest:
        headers["cache-control"] = "public, immutable, max-age=31536000"
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(rendered.body, headers=headers, media_type="application/json")


async def v2(request: Request) -> Response:
    """/openapi/v2.

    As protobuf it is a document without definitions: kubectl up to 1.31 reads one before it applies anything, and then
    finds in v3 what it needs to know.
    """
    if _V2_PROTOBUF in request.headers.get("accept", ""):
        info = _field(1, b"Michelangelo") + _field(2, michelangelo.__version__.encode())
        body = _field(1, b"2.0") + _field(2, info) + _field(8, b"") + _field(9, b"")
        # Go's parser of media types does not take the "@" of the name that its own client asks for.
        return Response(body, media_type=_V2_PROTOBUF.replace("@", "."))
    return Response(await asyncio.to_thread(_v2_json), media_type="application/json")


@cache
def _v2_json() -> bytes:
    return orjson.dumps(swagger.document())


def _field(number: int, value: bytes) -> bytes:
    """A field of a protobuf message that is text or a message, up to 127 bytes long."""
    return bytes((number << 3 | 2, len(value))) + value


@cache
def _all() -> dict[str, _Rendered]:
    found: dict[str, _Rendered] = {}
    for group, version in openapi.group_versions():
        body = orjson.dumps(openapi.document(group, version))
        digest = hashlib.sha256(body).hexdigest()[:32].upper()
        found[openapi.path_of(group, version)] = _Rendered(body, digest)
    return found
