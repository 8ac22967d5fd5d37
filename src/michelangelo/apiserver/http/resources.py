"""The resource API over HTTP: a URL, a method and a body become a verb, its result becomes an answer. One handler
serves every kind; which verbs mean what is said in `apiserver.verbs`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from michelangelo import errors
from michelangelo.apiserver import authorization
from michelangelo.apiserver.authorization import Attributes
from michelangelo.apiserver.http import awaiting, bodies, negotiation, queries, replies, targets
from michelangelo.apiserver.http.watches import WatchStream
from michelangelo.apiserver.patching import Patch
from michelangelo.meta import depth, status

if TYPE_CHECKING:
    from michelangelo.apiserver.auth import Identity
    from michelangelo.apiserver.http.metrics import Metrics
    from michelangelo.apiserver.http.targets import Target
    from michelangelo.apiserver.options import WriteOptions
    from michelangelo.apiserver.verbs import ApiServer
    from michelangelo.client.client import Object

__all__ = ["Resources"]

_COLLECTION_VERBS: Final = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_ITEM_VERBS: Final = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCE_VERBS: Final = {"GET": "get", "PUT": "update", "PATCH": "patch"}
_INLINE_LIST: Final = 100
"""Longer lists are read in a thread, so that others need not wait for them."""
_APPLY: Final = ("application/apply-patch+yaml", "application/apply-patch+cbor")


class Resources:
    def __init__(self, api: ApiServer, metrics: Metrics, closing: asyncio.Event) -> None:
        """`closing` ends the watches."""
        self._api = api
        self._metrics = metrics
        self._closing = closing

    async def handle(self, request: Request) -> Response:
        """The endpoint of every resource URL."""
        parameters = request.path_params
        target = targets.parse(parameters.get("group", ""), parameters["version"], parameters["path"])
        verb = _verb(request, target)
        request.scope["verb"], request.scope["resource"] = verb, target.kind.resource
        wanted = Attributes(
            "list" if verb == "deletecollection" else verb,
            target.kind,
            target.namespace,
            target.name,
            target.subresource,
            request.query_params.get("labelSelector", ""),
            request.query_params.get("fieldSelector", ""),
        )
        identity: Identity = request.scope["identity"]
        if identity.run is not None:
            if verb == "deletecollection":
                wanted = replace(wanted, verb=verb)
            authorization.authorize(identity, wanted)
        handler: Callable[[Request, Target, Attributes], Any] = getattr(self, f"_{verb}")
        response: Response = await handler(request, target, wanted)
        return response

    # --- reading ----------------------------------------------------------------------------------------------

    async def _get(self, request: Request, target: Target, wanted: Attributes) -> Response:
        obj = self._api.get(target.kind, target.namespace, target.name)
        authorization.check_object(request.scope["identity"], wanted, obj)
        form = _form(request, "Table", "PartialObjectMetadata")
        return replies.single(target.kind, obj, form, include=_include(request))

    async def _list(self, request: Request, target: Target, wanted: Attributes) -> Response:
        options = queries.list_options(request.query_params)
        form = _form(request, "Table", "PartialObjectMetadataList")

        def read() -> Response:
            found = self._api.list(target.kind, target.namespace, options)
            return replies.listing(target.kind, found, form, include=_include(request))

        if 0 < options.limit <= _INLINE_LIST:
            return read()
        return await asyncio.to_thread(read)

    async def _watch(self, request: Request, target: Target, wanted: Attributes) -> Response:
        query = request.query_params
        options = queries.watch_options(query)
        if target.name:
            selector = f"metadata.name={target.name}"
            present = options.field_selector
            options = replace(options, field_selector=f"{present},{selector}" if present else selector)
        form = _form(request, "Table", "PartialObjectMetadata")
        cursor = self._api.watch(target.kind, target.namespace, options)
        stream = WatchStream(
            self._api, cursor, target.kind, options, form, closing=self._closing, include=_include(request)
        )
        # Spread, so that the watches of a restarted server do not all end in the same second.
        seconds = queries.timeout_seconds(query, 1800 * (1 + random.random()))
        media_type = "application/json;stream=watch" if form.shape else "application/json"
        return StreamingResponse(stream.lines(seconds, self._metrics), media_type=media_type)

    # --- writing ----------------------------------------------------------------------------------------------

    async def _create(self, request: Request, target: Target, wanted: Attributes) -> Response:
        obj = await self._object(request)
        options = self._write_options(request, wanted)
        stored = await awaiting.run(self._api.create(target.kind, target.namespace, obj, options))
        form = _form(request, "Table", "PartialObjectMetadata")
        return replies.single(target.kind, stored, form, 201, options.warnings)

    async def _update(self, request: Request, target: Target, wanted: Attributes) -> Response:
        obj = await self._object(request)
        options = self._write_options(request, wanted)
        change = self._api.update(target.kind, target.namespace, target.name, obj, options, target.subresource)
        stored = await awaiting.run(change)
        form = _form(request, "Table", "PartialObjectMetadata")
        return replies.single(target.kind, stored, form, 200, options.warnings)

    async def _patch(self, request: Request, target: Target, wanted: Attributes) -> Response:
        patch = await self._patch_of(request, target)
        options = self._write_options(request, wanted)
        change = self._api.patch(target.kind, target.namespace, target.name, patch, options, target.subresource)
        stored = await awaiting.run(change)
        form = _form(request, "Table", "PartialObjectMetadata")
        return replies.single(target.kind, stored, form, 200, options.warnings)

    async def _delete(self, request: Request, target: Target, wanted: Attributes) -> Response:
        body = await self._delete_body(request)
        options = self._write_options(request, wanted, body)
        how = queries.delete_options(request.query_params, body)
        answer = await awaiting.run(self._api.delete(target.kind, target.namespace, target.name, options, how))
        return replies.single(target.kind, answer, _form(request, "Table", "PartialObjectMetadata"))

    async def _deletecollection(self, request: Request, target: Target, wanted: Attributes) -> Response:
        body = await self._delete_body(request)
        options = self._write_options(request, wanted, body)
        how = queries.delete_options(request.query_params, body)
        selectors = queries.list_options(request.query_params)
        found = await awaiting.run(self._api.delete_collection(target.kind, target.namespace, selectors, options, how))
        return replies.listing(target.kind, found, _form(request, "Table", "PartialObjectMetadataList"))

    # --- bodies and options -----------------------------------------------------------------------------------

    async def _object(self, request: Request) -> Object:
        obj = await bodies.parse(await bodies.read(request), bodies.media_type(request))
        if not isinstance(obj, dict):
            raise errors.BadRequestError(f"the body of the request must be an object; it is a {type(obj).__name__}")
        return obj

    async def _patch_of(self, request: Request, target: Target) -> Patch:
        media_type = bodies.media_type(request)
        if media_type in _APPLY:
            raise errors.UnsupportedMediaTypeError(
                "server-side apply is not supported by this server: leave out --server-side, and kubectl sends a "
                "merge patch"
            )
        accepted = [bodies.JSON_PATCH, bodies.MERGE_PATCH]
        # Kubernetes too has strategic merges only where the server knows the kind's lists by heart.
        if target.kind.group != "michelangelo.api":
            accepted.append(bodies.STRATEGIC_PATCH)
        body = await bodies.parse(await bodies.read(request), media_type, tuple(accepted))
        if depth.deeper_than(body, depth.MAX_DEPTH + 2):
            raise errors.BadRequestError(f"the patch is nested deeper than {depth.MAX_DEPTH} levels")
        if media_type == bodies.JSON_PATCH:
            return Patch("json", body)
        return Patch("merge" if media_type == bodies.MERGE_PATCH else "strategic", body)

    async def _delete_body(self, request: Request) -> Object:
        raw = await bodies.read(request)
        body = await bodies.parse(raw, bodies.media_type(request)) if raw.strip() else {}
        if not isinstance(body, dict):
            raise errors.BadRequestError("the body of a deletion must be a DeleteOptions object, or empty")
        return body

    def _write_options(self, request: Request, wanted: Attributes, body: Object | None = None) -> WriteOptions:
        identity: Identity = request.scope["identity"]
        options = queries.write_options(request.query_params, identity.user, body)
        if identity.run is None:
            return options
        return replace(options, guard=lambda obj: authorization.check_object(identity, wanted, obj))


def _verb(request: Request, target: Target) -> str:
    method = "GET" if request.method == "HEAD" else request.method
    verbs = _SUBRESOURCE_VERBS if target.subresource else _ITEM_VERBS if target.name else _COLLECTION_VERBS
    verb = verbs.get(method)
    if target.subresource == "finalize" and verb != "update":
        verb = None
    # Kubernetes creates in a namespace only; a list over all of them is read-only.
    if verb in ("create", "deletecollection") and target.kind.namespaced and not target.namespace:
        verb = None
    if verb is None:
        raise status.method_not_allowed(target.kind.group, target.kind.plural, method)
    if verb in ("get", "list") and not target.subresource and queries.truth(request.query_params, "watch"):
        return "watch"
    return verb


def _form(request: Request, *shapes: str) -> negotiation.Form:
    return negotiation.accepted(request.headers.get("accept", ""), *shapes)


def _include(request: Request) -> str:
    return request.query_params.get("includeObject") or "Metadata"
