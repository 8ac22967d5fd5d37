"""The outermost layer of the server: every request passes here, and every error leaves here as a Status.

In order: is it for this host and from no foreign site, who calls, then the application; what it raises becomes a
Status, and each request is counted. It knows nothing of what requests ask for.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from michelangelo import errors
from michelangelo.apiserver.auth import ANONYMOUS, Authenticator
from michelangelo.apiserver.http.metrics import Metrics
from michelangelo.meta import status

__all__ = ["Gate"]

logger = logging.getLogger(__name__)

_OPEN: Final = frozenset({"/readyz", "/livez", "/healthz", "/version"})
"""What anybody who reaches the server may ask: that it is there, and which version."""


class Gate:
    """ASGI middleware; puts `scope["identity"]`."""

    def __init__(
        self, app: ASGIApp, *, authenticator: Authenticator, metrics: Metrics, hosts: Iterable[str] = ("localhost",)
    ) -> None:
        """`hosts`: names that the server goes by besides loopback addresses and the address that it was reached at."""
        self._app = app
        self._authenticator = authenticator
        self._metrics = metrics
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        code = 0

        async def watched_send(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            self._admit(scope)
            await self._app(scope, receive, watched_send)
        except errors.ApiError as e:
            if code == 0:
                await _refuse(e, watched_send)
        except errors.StorageError as e:
            logger.error("%s %s: %s", scope["method"], scope["path"], e)
            if code == 0:
                await _refuse(errors.InternalError(f"the store cannot do this now: {e}"), watched_send)
        except Exception:  # the outermost loop of a request: whatever went wrong, the client gets a Status
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if code == 0:
                message = "the server met an error that it did not expect; its log has the details"
                await _refuse(errors.InternalError(message), watched_send)
        finally:
            verb = scope.get("verb") or scope["method"].lower()
            self._metrics.observe(verb, scope.get("resource", ""), code, time.perf_counter() - started)

    def _admit(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host, scope):
            raise errors.ForbiddenError(
                f"this server does not go by the name {host!r}; reach it as localhost, or start it with that host name"
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        # A page of another site must not make a browser act with what the browser knows.
        if origin and urlsplit(origin).netloc.lower() != host.lower():
            raise errors.ForbiddenError(f"requests from pages of {origin} are refused")
        if not origin and headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            raise errors.ForbiddenError("requests from pages of other sites are refused")
        if scope["path"] in _OPEN:
            scope["identity"] = ANONYMOUS
            return
        identity = self._authenticator.identify(headers.get(b"authorization", b"").decode("latin-1"))
        if identity == ANONYMOUS:
            raise errors.UnauthorizedError(
                "Unauthorized: send the server's token as `Authorization: Bearer …`; "
                "mactl and the kubeconfig in the server's home have it"
            )
        scope["identity"] = identity

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """Names that others control can be made to point here (DNS rebinding); addresses and our own names cannot."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        server = scope.get("server")
        return address.is_loopback or (server is not None and name == server[0])


async def _refuse(error: errors.ApiError, send: Send) -> None:
    body = orjson.dumps(status.to_status(error))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, errors.UnauthorizedError):
        headers.append((b"www-authenticate", b'Bearer realm="michelangelo"'))
    if isinstance(error, errors.RequestTooLargeError):
        # The rest of the body may not have been read.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
