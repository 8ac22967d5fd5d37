"""The Client protocol: the verbs of the API, the same in process, over HTTP to our server, and to a Kubernetes API
server.

Objects travel as plain JSON documents (`Object`), exactly as they are on the wire: nothing between a controller and the
store builds models that it does not need. Kinds are named by their `kind` ("PipelineRun"); the registry in
`michelangelo.api.v2.registry` knows group, version, plural and scope. A client knows no kind beyond that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = [
    "Client",
    "EventType",
    "JsonPatch",
    "Object",
    "ObjectList",
    "PatchType",
    "Propagation",
    "Subresource",
    "Watch",
    "WatchEvent",
]

Object = dict[str, Any]
"""A Kubernetes-style object as JSON: apiVersion, kind, metadata, spec, status."""
JsonPatch = list[dict[str, Any]]
PatchType = Literal["json", "merge"]
Propagation = Literal["Background", "Foreground", "Orphan"]
Subresource = Literal["", "status", "finalize"]
"""`finalize` is for Namespaces only: it writes `spec.finalizers`."""
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A page of objects as of `resource_version`; `continue_token` is empty on the last page."""

    items: Sequence[Object]
    resource_version: str
    continue_token: str = ""
    remaining: int = 0


@dataclass(frozen=True, slots=True)
class WatchEvent:
    type: EventType
    object: Object


class Watch(Protocol):
    """A stream of events. Not thread safe: one reader."""

    def next(self, timeout_seconds: float | None = None) -> WatchEvent | None:
        """The next event; None when `timeout_seconds` passed without one or the watch was closed.

        Raises ExpiredError when the events were compacted away (list again), UnavailableError when the server went
        away."""
        ...

    def close(self) -> None: ...


class Client(Protocol):
    """Every verb raises an ApiError subclass when it is refused. `namespace=""` for cluster-scoped kinds;
    in `list` and `watch` an empty namespace means all of them."""

    def get(self, kind: str, name: str, *, namespace: str = "") -> Object: ...

    def list(
        self,
        kind: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> ObjectList: ...

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """`metadata.generateName` is honoured. Where the kind has a status subresource, `status` is dropped."""
        ...

    def update(self, obj: Object, *, subresource: Subresource = "", dry_run: bool = False) -> Object:
        """Replace. With `metadata.resourceVersion` set it must be the current one, else ConflictError."""
        ...

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
    ) -> Object: ...

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
        """Delete, or mark for deletion while finalizers remain; `uid` and `resource_version` are preconditions."""
        ...

    def watch(
        self,
        kind: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> Watch:
        """Events after `resource_version`; with an empty one, the present objects as ADDED first."""
        ...

    def close(self) -> None: ...
