"""Owners and what belongs to them, for all kinds: an object goes with its last owner, before or after it, as asked.

* background (the default): the owner is gone; each of its dependents that has no other owner is deleted;
* foreground: the owner has the finalizer `foregroundDeletion` and waits for those dependents that block its deletion;
* orphan: the owner has the finalizer `orphan`; its dependents lose the reference to it, and stay.

An owner is what its uid says: an object of the same name that was made later is another one. That an owner is gone is
never concluded from a cache, which may be behind: the server is asked. Who depends on whom is read from the caches, as
in Kubernetes: what was made in the last moment before a foreground deletion may go after its owner instead of before
it. Owners of kinds that we do not know are left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.client.client import Client, Object, Propagation
from michelangelo.client.informer import BY_OWNER, Informer, by_owner
from michelangelo.runtime import controller
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request, Result

__all__ = ["FOREGROUND", "ORPHAN", "GarbageCollector", "sources"]

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
_PAGE: Final = 500


class GarbageCollector:
    """Its requests name the kind of the object as well."""

    def __init__(self, client: Client, informers: Mapping[str, Informer]) -> None:
        self._client = client
        self._informers = dict(informers)

    def reconcile(self, request: Request) -> Result:
        obj = self._informers[request.kind].get(request.name, namespace=request.namespace)
        if obj is None:
            return Result()
        metadata = obj["metadata"]
        finalizers = metadata.get("finalizers") or ()
        if metadata.get("deletionTimestamp"):
            if ORPHAN in finalizers:
                self._orphan_dependents(obj)
            elif FOREGROUND in finalizers:
                self._await_dependents(obj)
            return Result()
        if metadata.get("ownerReferences"):
            self._judge(obj)
        return Result()

    # --- as a dependent -------------------------------------------------------------------------------------

    def _judge(self, obj: Object) -> None:
        """Delete what has no owner left, and cut references to owners that are gone."""
        references: list[dict[str, Any]] = obj["metadata"]["ownerReferences"]
        solid, leaving, gone = [], [], []
        for reference in references:
            owner = self._owner(reference, obj["metadata"].get("namespace") or "")
            if owner is None:
                gone.append(reference)
            elif owner is not _UNKNOWN and _waits_for_dependents(owner):
                leaving.append(reference)
            else:
                solid.append(reference)
        if not gone and not leaving:
            return
        if solid:
            self._write_references(obj, solid)
        elif leaving:
            # Its own dependents go first, where it has any: so a tree goes from its leaves to its root.
            self._delete(obj, "Foreground" if self._dependents(obj) else "Background")
        else:
            self._delete(obj, "Background")

    def _owner(self, reference: Mapping[str, Any], namespace: str) -> Object | None:
        """The owner; None when there is none any more; _UNKNOWN for a kind that is not ours to judge."""
        kind = registry.KINDS.get(reference["kind"])
        if kind is None or kind.api_version != reference["apiVersion"]:
            return _UNKNOWN
        space = namespace if kind.namespaced else ""
        if kind.namespaced and not namespace:
            return None  # A cluster-scoped object cannot belong to a namespaced one.
        cached = self._informers[kind.kind].get(reference["name"], namespace=space)
        if cached is not None and cached["metadata"]["uid"] == reference["uid"]:
            return cached
        try:
            found = self._client.get(kind.kind, reference["name"], namespace=space)
        except errors.NotFoundError:
            return None
        return found if found["metadata"]["uid"] == reference["uid"] else None

    # --- as an owner ----------------------------------------------------------------------------------------

    def _await_dependents(self, owner: Object) -> None:
        uid = owner["metadata"]["uid"]
        if any(_blocks(dependent, uid) for dependent in self._dependents(owner)):
            return  # Each of them is deleted by its own request; the last one to go leads back here.
        self._remove_finalizer(owner, FOREGROUND)

    def _orphan_dependents(self, owner: Object) -> None:
        """The server is asked for them: one that a cache missed would be deleted afterwards."""
        uid = owner["metadata"]["uid"]
        for dependent in self._present_dependents(owner):
            references = dependent["metadata"]["ownerReferences"]
            self._write_references(dependent, [one for one in references if one["uid"] != uid])
        self._remove_finalizer(owner, ORPHAN)

    def _dependents(self, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        return [obj for informer in self._informers.values() for obj in informer.by_index(BY_OWNER, uid)]

    def _present_dependents(self, owner: Object) -> Iterator[Object]:
        uid, namespace = owner["metadata"]["uid"], owner["metadata"].get("namespace") or ""
        for kind in self._informers:
            token = ""
            while True:
                page = self._client.list(kind, namespace=namespace, limit=_PAGE, continue_token=token)
                yield from (obj for obj in page.items if uid in by_owner(obj))
                token = page.continue_token
                if not token:
                    break

    # --- writes ---------------------------------------------------------------------------------------------

    def _write_references(self, obj: Object, references: list[dict[str, Any]]) -> None:
        metadata = dict(obj["metadata"])
        metadata.pop("ownerReferences", None)
        if references:
            metadata["ownerReferences"] = references
        self._ignore_missing(lambda: self._client.update({**obj, "metadata": metadata}))

    def _remove_finalizer(self, obj: Object, finalizer: str) -> None:
        metadata = dict(obj["metadata"])
        metadata["finalizers"] = [name for name in metadata.get("finalizers") or () if name != finalizer]
        self._ignore_missing(lambda: self._client.update({**obj, "metadata": metadata}))

    def _delete(self, obj: Object, propagation: Propagation) -> None:
        metadata = obj["metadata"]
        self._ignore_missing(
            lambda: self._client.delete(
                obj["kind"],
                metadata["name"],
                namespace=metadata.get("namespace") or "",
                propagation=propagation,
                uid=metadata["uid"],
                # Not what was judged if it got another owner in the meantime.
                resource_version=metadata["resourceVersion"],
            )
        )

    def _ignore_missing(self, write: Any) -> None:
        try:
            write()
        except errors.NotFoundError:
            pass


_UNKNOWN: Final[Object] = {}


def sources(manager: Manager) -> list[controller.Source]:
    """Every object; with it its dependents and its owners, of whatever kind."""
    informers = {kind: manager.informer(kind) for kind in registry.KINDS}

    def leaving(metadata: Mapping[str, Any]) -> Iterator[Request]:
        """The dependents, and the owners that wait for this one."""
        for informer in informers.values():
            yield from map(_request, informer.by_index(BY_OWNER, metadata["uid"]))
        for reference in metadata.get("ownerReferences") or ():
            if reference["kind"] in informers:
                space = (metadata.get("namespace") or "") if registry.KINDS[reference["kind"]].namespaced else ""
                owner = informers[reference["kind"]].get(reference["name"], namespace=space)
                if owner is not None and owner["metadata"].get("deletionTimestamp"):
                    yield _request(owner)

    def changed(obj: Object) -> Iterator[Request]:
        # Most changes are of living objects and concern nobody: they must cost nothing here.
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp") or metadata.get("ownerReferences"):
            yield _request(obj)
            yield from leaving(metadata)

    def gone(obj: Object) -> Iterator[Request]:
        yield from leaving(obj["metadata"])

    present, deleted = frozenset(("ADDED", "MODIFIED")), frozenset(("DELETED",))
    return [
        source
        for informer in informers.values()
        for source in (
            controller.Source(informer, changed, types=present),
            controller.Source(informer, gone, types=deleted),
        )
    ]


def _request(obj: Object) -> Request:
    metadata = obj["metadata"]
    return Request(metadata.get("namespace") or "", metadata["name"], obj["kind"])


def _waits_for_dependents(owner: Object) -> bool:
    metadata = owner["metadata"]
    return bool(metadata.get("deletionTimestamp")) and FOREGROUND in (metadata.get("finalizers") or ())


def _blocks(dependent: Object, owner_uid: str) -> bool:
    references = dependent["metadata"].get("ownerReferences") or ()
    return any(one["uid"] == owner_uid and one.get("blockOwnerDeletion") for one in references)
