"""The Client within the process of the API server: the verbs without a wire. `client.http` is its twin over HTTP.

Nothing is copied or encoded that the verbs do not copy themselves, and a watch waits on the store's own signal.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import patching, verb
from michelangelo.apiserver.options import DeleteOptions, ListOptions, WatchOptions, WriteOptions
from michelangelo.client import paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from michelangelo.apiserver.verbs import ApiServer
    from michelangelo.apiserver.watching import WatchCursor
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

__all__ = ["InProcessClient"]


class InProcessClient:
    """See `client.Client`. `user` is who writes, for the audit log. Closing it closes its watches, not the server."""

    def __init__(self, server: ApiServer, *, user: str = "in-process") -> None:
        self._server = server
        self._user = user
        self._watches: set[_InProcessWatch] = set()

    def get(self, kind: str, name: str, *, namespace: str = "") -> Object:
        known = _addressed(kind, name, namespace)
        return self._server.get(known, namespace, name)

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
        options = ListOptions(label_selector, field_selector, limit, continue_token)
        return self._server.list(registry.get(kind), namespace, options)

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        kind, name, namespace = _address_of(obj)
        if kind.kind == "Project":
            namespace = namespace or name
        paths.check(kind, name or "generated", namespace)
        return verb.run(self._server.create(kind, namespace, obj, self._writing(dry_run)))

    def update(self, obj: Object, *, subresource: Subresource = "", dry_run: bool = False) -> Object:
        kind, name, namespace = _address_of(obj)
        paths.check(kind, name, namespace)
        return verb.run(self._server.update(kind, namespace, name, obj, self._writing(dry_run), subresource))

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
        known = _addressed(kind, name, namespace)
        change = patching.Patch(patch_type, patch)
        return verb.run(self._server.patch(known, namespace, name, change, self._writing(dry_run), subresource))

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
        known = _addressed(kind, name, namespace)
        how = DeleteOptions(propagation, uid, resource_version)
        return verb.run(self._server.delete(known, namespace, name, self._writing(False), how))

    def watch(
        self,
        kind: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> Watch:
        options = WatchOptions(label_selector, field_selector, resource_version)
        cursor = self._server.watch(registry.get(kind), namespace, options)
        # What is present is so at the time of this call, and not when the first event is asked for.
        present = [] if resource_version else cursor.poll()
        watch = _InProcessWatch(self._server, cursor, present, self._watches.discard)
        self._watches.add(watch)
        return watch

    def close(self) -> None:
        for watch in tuple(self._watches):
            watch.close()

    def _writing(self, dry_run: bool) -> WriteOptions:
        return WriteOptions(user=self._user, dry_run=dry_run)


class _InProcessWatch:
    """One reader; `close` from any thread."""

    def __init__(
        self,
        server: ApiServer,
        cursor: WatchCursor,
        present: list[WatchEvent],
        forget: Callable[[_InProcessWatch], None],
    ) -> None:
        self._cursor = cursor
        self._forget = forget
        self._changed = threading.Condition()
        self._news = True
        self._closed = False
        self._events: deque[WatchEvent] = deque(present)
        self._unsubscribe = server.subscribe(self._wake, prefix=cursor.prefix)

    def next(self, timeout_seconds: float | None = None) -> WatchEvent | None:
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not self._events:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            with self._changed:
                if not self._changed.wait_for(lambda: self._news or self._closed, left) or self._closed:
                    return None
                self._news = False
            # Commits from here on set `_news` again, so none is missed between this look and the next wait.
            self._events.extend(self._cursor.poll())
            if self._events:
                self._news = True  # A poll gives a batch: only an empty one says that there is no more.
        return None if self._closed else self._events.popleft()

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._unsubscribe()
        self._forget(self)

    def _wake(self, _revision: int) -> None:
        with self._changed:
            self._news = True
            self._changed.notify_all()


def _addressed(kind: str, name: str, namespace: str) -> registry.Kind:
    known = registry.get(kind)
    paths.check(known, name, namespace)
    return known


def _address_of(obj: Object) -> tuple[registry.Kind, str, str]:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        raise errors.BadRequestError(f"{obj.get('kind') or 'object'}: metadata is missing")
    kind = registry.get(str(obj.get("kind") or ""))
    return kind, str(metadata.get("name") or ""), str(metadata.get("namespace") or "")
