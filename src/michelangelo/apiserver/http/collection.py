"""A pass of the collector of blobs, asked for over HTTP by the owner. It knows nothing of what is collected or how."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from michelangelo import errors
from michelangelo.apiserver import authorization
from michelangelo.apiserver.http import negotiation, queries, replies
from michelangelo.meta import status

__all__ = ["Collect", "Collection"]

Collect = Callable[[float, bool], Mapping[str, int]]
"""Age in seconds and whether only to count, to what was collected. Raises SettingsError, StorageError, ApiError."""
_DEFAULT_AGE: Final = "86400"


class Collection:
    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    async def handle(self, request: Request) -> Response:
        """POST /blobs/collect?olderThanSeconds=N&dryRun=true."""
        request.scope["resource"] = "blobs"
        authorization.authorize_collection(request.scope["identity"])
        if request.method != "POST":
            raise status.method_not_allowed("", "blobs", request.method)
        text = request.query_params.get("olderThanSeconds", _DEFAULT_AGE)
        try:
            age = float(text)
        except ValueError:
            age = math.nan
        if not math.isfinite(age):
            raise errors.BadRequestError(f"olderThanSeconds: Invalid value: {text[:80]!r}: must be a number of seconds")
        dry_run = queries.truth(request.query_params, "dryRun")
        try:
            found = await asyncio.to_thread(self._collect, age, dry_run)
        except errors.SettingsError as e:
            raise errors.BadRequestError(e.message) from e
        except errors.StorageError as e:
            # Shown in full, where the gate would hide it: it is the owner who asks.
            raise errors.UnavailableError(f"the blobs cannot be collected: {e.message}") from e
        return replies.document(dict(found), negotiation.JSON)
