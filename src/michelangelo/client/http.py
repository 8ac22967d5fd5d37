"""The Client over HTTP: to our server, and unchanged to any Kubernetes API server. Only standard verbs and
parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.client import paths, stream, transport
from michelangelo.client.client import (
    JsonPatch,
    Object,
    ObjectList,
    PatchType,
    Propagation,
    Subresource,
    Watch,
    WatchEvent,
)
from michelangelo.client.kubeconfig import Endpoint

__all__ = ["HttpClient"]

_CONTENT_TYPES: Final[Mapping[str, str]] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
}
_PAGE: Final = 500


class HttpClient:
    """See `client.Client`. `timeout_seconds` bounds the silence of the server within one request."""

    def __init__(self, endpoint: Endpoint, *, timeout_seconds: float = 30.0, pool_size: int = 16) -> None:
        self._transport = transport.Transport(endpoint, timeout_seconds=timeout_seconds, pool_size=pool_size)

    @property
    def transport(self) -> transport.Transport:
        """For what is no verb on an object: discovery, `/version`, logs."""
        return self._transport

    def get(self, kind: str, name: str, *, namespace: str = "") -> Object:
        return self._send("GET", paths.item(registry.get(kind), name, namespace=namespace))

    def list(
        self,
        kind: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> ObjectList:
        known = registry.get(kind)
        query = _given(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit) if limit else "",
            **{"continue": continue_token},
        )
        document = self._send("GET", paths.collection(known, namespace), query=query)
        metadata = document.get("metadata") or {}
        # A list leaves out what its items have in common.
        items = [{**item, "apiVersion": known.api_version, "kind": known.kind} for item in document.get("items") or ()]
        return ObjectList(
            items,
            str(metadata.get("resourceVersion") or ""),
            str(metadata.get("continue") or ""),
            int(metadata.get("remainingItemCount") or 0),
        )

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        kind, metadata = _kind_of(obj), _metadata(obj)
        name, namespace = str(metadata.get("name") or ""), str(metadata.get("namespace") or "")
        if kind.kind == "Project":
            return self._create_project(kind, obj, name, namespace or name, dry_run=dry_run)
        paths.check(kind, name or "generated", namespace)
        return self._send("POST", paths.collection(kind, namespace), query=_dry(dry_run), body=obj)

    def update(self, obj: Object, *, subresource: Subresource = "", dry_run: bool = False) -> Object:
        path = _item_of(obj, subresource)
        return self._send("PUT", path, query=_dry(dry_run), body=obj)

    def patch(
        self,
        kind: str,
        name: str,
        patch: Object | JsonPatch,
        *,
        namespace: str = "",
        patch_type: PatchType = "merge",
        subresource: Subresource = "",
        dry_run: bool = False,
    ) -> Object:
        path = paths.item(registry.get(kind), name, namespace=namespace, subresource=subresource)
        return self._send("PATCH", path, query=_dry(dry_run), body=patch, content_type=_CONTENT_TYPES[patch_type])

    def delete(
        self,
        kind: str,
        name: str,
        *,
        namespace: str = "",
        propagation: Propagation = "Background",
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if preconditions := _given(uid=uid, resourceVersion=resource_version):
            options["preconditions"] = preconditions
        return self._send("DELETE", paths.item(registry.get(kind), name, namespace=namespace), body=options)

    def watch(
        self,
        kind: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> Watch:
        present: list[WatchEvent] = []
        if not resource_version:
            # A list and a watch from there, rather than the server's own 'from nowhere': that one sends the present
            # objects in any order and without an end, so that a broken stream could not be continued.
            token = ""
            while True:
                page = self.list(
                    kind,
                    namespace=namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    limit=_PAGE,
                    continue_token=token,
                )
                present.extend(WatchEvent("ADDED", item) for item in page.items)
                resource_version, token = page.resource_version, page.continue_token
                if not token:
                    break
        query = _given(labelSelector=label_selector, fieldSelector=field_selector)
        query |= {"watch": "true", "allowWatchBookmarks": "true"}
        path = paths.collection(registry.get(kind), namespace)
        return stream.HttpWatch(self._transport, path, query=query, resource_version=resource_version, present=present)

    def close(self) -> None:
        self._transport.close()

    def _create_project(self, kind: registry.Kind, obj: Object, name: str, namespace: str, *, dry_run: bool) -> Object:
        """A project lives in the namespace of its name. Our server makes both at once; Kubernetes wants it there
        first."""
        paths.check(kind, name, namespace)
        project = {**obj, "metadata": {**_metadata(obj), "namespace": namespace}}
        path = paths.collection(kind, namespace)
        try:
            return self._send("POST", path, query=_dry(dry_run), body=project)
        except errors.NotFoundError as e:
            if dry_run or e.details.get("kind") != "namespaces":
                raise
        try:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        except errors.AlreadyExistsError:
            pass
        return self._send("POST", path, body=project)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        data = self._transport.send(method, path, query=query, body=body, content_type=content_type)
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError as e:
            raise errors.InternalError(f"{self._transport.endpoint.server}{path} answered with no JSON") from e
        if not isinstance(document, dict):
            raise errors.InternalError(f"{self._transport.endpoint.server}{path} answered with no JSON object")
        return document


def _kind_of(obj: Object) -> registry.Kind:
    return registry.get(str(obj.get("kind") or ""))


def _metadata(obj: Object) -> Mapping[str, Any]:
    metadata = obj.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _item_of(obj: Object, subresource: str) -> str:
    metadata = _metadata(obj)
    name, namespace = str(metadata.get("name") or ""), str(metadata.get("namespace") or "")
    return paths.item(_kind_of(obj), name, namespace=namespace, subresource=subresource)


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _given(**values: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}
