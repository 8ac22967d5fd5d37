"""The ASGI application: which URL leads where, with the gate around it. A route per shape of URL, none per kind."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

import michelangelo
from michelangelo import errors
from michelangelo.apiserver.http import discovery, metrics, negotiation, openapi, replies
from michelangelo.apiserver.http.collection import Collection
from michelangelo.apiserver.http.content import Content
from michelangelo.apiserver.http.gate import Gate
from michelangelo.apiserver.http.resources import Resources

if TYPE_CHECKING:
    from michelangelo.apiserver.auth import Authenticator
    from michelangelo.apiserver.http.collection import Collect
    from michelangelo.apiserver.verbs import ApiServer
    from michelangelo.blobs.blob_store import BlobStore

__all__ = ["App", "AppParts"]

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_KUBERNETES: Final = ("1", "33")
"""The Kubernetes version whose API conventions are followed; kubectl chooses its own version by it."""


@dataclass(frozen=True)
class AppParts:
    """What the application is put together from."""

    api: ApiServer
    authenticator: Authenticator
    hosts: Iterable[str] = ("localhost",)
    """Host names besides addresses by which clients may reach the server."""
    blobs: BlobStore | None = None
    logs: Path | None = None
    """Folder of the logs; None, or no blob store: the server has neither."""
    collect: Collect | None = None
    """Collects blobs that nothing refers to; None: this server does not."""
    routes: Iterable[Route] = field(default=())
    """Further routes, such as those of a user interface; behind the same gate."""


class App:
    """One application for one event loop."""

    def __init__(self, parts: AppParts) -> None:
        self._api = parts.api
        self._metrics = metrics.Metrics(parts.api.revision)
        self.closing = asyncio.Event()
        """Set on the loop, it ends watches and streams of logs, so that the server can stop."""
        router = Router(self._routes(parts), redirect_slashes=False, default=_nowhere)
        self._app: ASGIApp = Gate(router, authenticator=parts.authenticator, metrics=self._metrics, hosts=parts.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def _routes(self, parts: AppParts) -> list[Route]:
        resources = Resources(parts.api, self._metrics, self.closing)
        routes = [
            _route("/apis/{group}/{version}/{path:path}", resources.handle),
            _route("/api/{version}/{path:path}", resources.handle),
            _route("/readyz", self._ready),
            _route("/livez", _alive),
            _route("/healthz", self._ready),
            _route("/version", _version),
            _route("/metrics", self._render_metrics),
            _route("/api", discovery.legacy_versions),
            _route("/api/{version}", discovery.resources),
            _route("/apis", discovery.groups),
            _route("/apis/{group}", discovery.group),
            _route("/apis/{group}/{version}", discovery.resources),
            _route("/openapi/v2", openapi.v2),
            _route("/openapi/v3", openapi.v3),
            _route("/openapi/v3/{path:path}", openapi.v3_of),
        ]
        if parts.blobs is not None and parts.logs is not None:
            content = Content(parts.api, parts.blobs, parts.logs, closing=self.closing)
            routes.append(_route("/blobs/sha256/{digest}", content.blob))
            routes.append(_route("/logs/{namespace}/{run}/{taskrun}", content.log))
        if parts.collect is not None:
            routes.append(_route("/blobs/collect", Collection(parts.collect).handle))
        return [*routes, *parts.routes]

    async def _ready(self, request: Request) -> Response:
        if self.closing.is_set():
            raise errors.UnavailableError("the server is shutting down")
        self._api.revision()
        return PlainTextResponse("ok")

    async def _render_metrics(self, request: Request) -> Response:
        return Response(self._metrics.render(), media_type=metrics.CONTENT_TYPE)


def _route(path: str, endpoint: Any) -> Route:
    # All methods: what is not allowed is answered with a Status by the endpoint.
    return Route(path, endpoint, methods=_METHODS)


async def _alive(request: Request) -> Response:
    return PlainTextResponse("ok")


async def _version(request: Request) -> Response:
    major, minor = _KUBERNETES
    content = {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{major}.{minor}.0+michelangelo-{michelangelo.__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
    return replies.document(content, negotiation.JSON)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise errors.NotFoundError("the server could not find the requested resource")
