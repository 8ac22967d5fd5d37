"""Namespace: once it is deleted, everything in it is, and then it may go.

For our own server only: a Kubernetes cluster has a controller for this, which also knows the kinds that we do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import Informer
from michelangelo.controllers import statuses
from michelangelo.meta import conditions, timestamps
from michelangelo.runtime import controller
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request, Result

__all__ = ["FINALIZER", "NamespaceReconciler", "sources"]

FINALIZER: Final = "kubernetes"
"""In `spec.finalizers`, as in Kubernetes."""
_PAGE: Final = 500
_LOOK_AGAIN_SECONDS: Final = 10.0
"""Contents that wait for a finalizer of somebody else's tell when they go; this is for what is missed."""


class NamespaceReconciler:
    def __init__(
        self, client: Client, namespaces: Informer, *, clock: timestamps.Clock = timestamps.system_clock
    ) -> None:
        self._client = client
        self._namespaces = namespaces
        self._clock = clock

    def reconcile(self, request: Request) -> Result:
        namespace = self._namespaces.get(request.name)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return Result()
        finalizers = list((namespace.get("spec") or {}).get("finalizers") or ())
        if FINALIZER not in finalizers:
            return Result()
        # Nothing new can come: the server refuses creations in a namespace that is being deleted.
        remaining = {kind.plural: count for kind in _contents() if (count := self._empty(kind, request.name))}
        if remaining:
            self._report(namespace, remaining)
            return Result(requeue_after_seconds=_LOOK_AGAIN_SECONDS)
        left = [name for name in finalizers if name != FINALIZER]
        try:
            self._client.update(
                {**namespace, "spec": {**namespace["spec"], "finalizers": left}}, subresource="finalize"
            )
        except errors.NotFoundError:
            pass
        return Result()

    def _empty(self, kind: registry.Kind, namespace: str) -> int:
        """Delete all objects of the kind; how many are still there, waiting for their finalizers."""
        count = 0
        for obj in self._objects(kind, namespace):
            metadata = obj["metadata"]
            if metadata.get("deletionTimestamp"):
                count += 1
                continue
            try:
                answer = self._client.delete(kind.kind, metadata["name"], namespace=namespace, uid=metadata["uid"])
            except errors.NotFoundError:
                continue
            count += answer.get("kind") == kind.kind
        return count

    def _objects(self, kind: registry.Kind, namespace: str) -> Iterator[Object]:
        token = ""
        while True:
            page = self._client.list(kind.kind, namespace=namespace, limit=_PAGE, continue_token=token)
            yield from page.items
            token = page.continue_token
            if not token:
                return

    def _report(self, namespace: Object, remaining: dict[str, int]) -> None:
        wanted = statuses.draft(namespace)
        message = "waiting for the finalizers of " + ", ".join(f"{count} {kind}" for kind, count in remaining.items())
        conditions.set(wanted, "Drained", "False", reason="ContentRemains", message=message, clock=self._clock)
        try:
            statuses.write(self._client, namespace, wanted)
        except errors.NotFoundError:
            pass


def sources(manager: Manager) -> list[controller.Source]:
    """Namespaces, and those of every object that has gone."""
    gone = frozenset(("DELETED",))
    return [
        controller.Source(manager.informer("Namespace"), controller.itself),
        *(
            controller.Source(
                manager.informer(kind.kind), lambda obj: [Request("", obj["metadata"]["namespace"])], types=gone
            )
            for kind in _contents()
        ),
    ]


def _contents() -> list[registry.Kind]:
    return [kind for kind in registry.KINDS.values() if kind.namespaced]
