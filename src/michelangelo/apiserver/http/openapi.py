"""The OpenAPI documents over HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from michelangelo import errors

__all__ = ["v2", "v3", "v3_of"]


async def v2(request: Request) -> Response:
    raise errors.NotFoundError("the server could not find the requested resource")


v3 = v2
v3_of = v2
