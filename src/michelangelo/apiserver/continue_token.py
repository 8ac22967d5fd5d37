"""Where a list starts: continue tokens and resourceVersions of requests, checked. It reads no store.

A token is opaque to clients and holds the revision of the first page and the last key of the page before. It is not
signed: whatever it says, a list stays under the prefix and the selection of its request.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from michelangelo import errors
from michelangelo.apiserver import refusals

if TYPE_CHECKING:
    from michelangelo.apiserver.options import ListOptions

__all__ = ["Start", "encode", "revision", "start"]


@dataclass(frozen=True, slots=True)
class Start:
    after: str
    """A key; the list starts behind it."""
    revision: int | None
    """The state to read; None for the newest."""


def encode(revision: int, last_key: str, prefix: str) -> str:
    document = {"v": "meta.k8s.io/v1", "rv": revision, "start": last_key.removeprefix(prefix)}
    return base64.urlsafe_b64encode(orjson.dumps(document)).rstrip(b"=").decode()


def start(options: ListOptions, prefix: str, newest: int) -> Start:
    """Raises BadRequestError for what is no token or does not go together, ExpiredError for a revision that is not
    there."""
    wanted = revision(options.resource_version)
    match = options.resource_version_match
    if options.limit < 0:
        raise errors.BadRequestError(f"limit: Invalid value: {options.limit}: must not be negative")
    if match not in ("", "Exact", "NotOlderThan"):
        raise errors.BadRequestError(
            f'resourceVersionMatch: Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
        )
    if options.continue_token:
        if wanted or match:
            raise errors.BadRequestError("specifying resource version is not allowed when using continue")
        return _decode(options.continue_token, prefix, newest)
    if match and not options.resource_version:
        raise errors.BadRequestError(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    if match == "Exact" and not wanted:
        raise errors.BadRequestError(
            'resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for resourceVersion "0"'
        )
    if wanted > newest:
        raise errors.ExpiredError(f"Too large resource version: {wanted}, current: {newest}")
    # Without a match and with a limit, a revision means that very one, as it always has.
    exact = match == "Exact" or (wanted > 0 and options.limit > 0 and not match)
    return Start("", wanted if exact else None)


def revision(text: str) -> int:
    """The revision that a request names; 0 for none. Raises BadRequestError."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise errors.BadRequestError(
            f'resourceVersion: Invalid value: "{text}": must be a number that this server gave'
        )
    return int(text)


def _decode(token: str, prefix: str, newest: int) -> Start:
    try:
        document = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
        at, after = document["rv"], document["start"]
        if document["v"] != "meta.k8s.io/v1" or type(at) is not int or type(after) is not str or at < 1:
            raise ValueError("not a token of this server")
    except (binascii.Error, ValueError, TypeError, KeyError) as e:
        raise errors.BadRequestError(
            f"continue key is not valid: {token[:80]!r}; start the list again without it"
        ) from e
    if at > newest:
        raise refusals.expired_continue()
    return Start(prefix + after, at)
