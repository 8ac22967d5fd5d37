"""Project: its namespace is there, and goes with it; its state says so."""

from __future__ import annotations

from typing import Final

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import Informer
from michelangelo.controllers import statuses
from michelangelo.meta import conditions, timestamps
from michelangelo.runtime import controller
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request, Result

__all__ = ["FINALIZER", "ProjectReconciler", "sources"]

FINALIZER: Final = "michelangelo.api/namespace"
"""Keeps a deleted project until the deletion of its namespace, and so of everything in it, has begun."""


class ProjectReconciler:
    def __init__(
        self,
        client: Client,
        projects: Informer,
        namespaces: Informer,
        *,
        clock: timestamps.Clock = timestamps.system_clock,
    ) -> None:
        self._client = client
        self._projects = projects
        self._namespaces = namespaces
        self._clock = clock

    def reconcile(self, request: Request) -> Result:
        project = self._projects.get(request.name, namespace=request.namespace)
        if project is None:
            return Result()
        metadata = project["metadata"]
        finalizers = list(metadata.get("finalizers") or ())
        if metadata.get("deletionTimestamp"):
            if FINALIZER in finalizers:
                self._delete_namespace(request.namespace)
                self._set_finalizers(project, [name for name in finalizers if name != FINALIZER])
            return Result()
        if FINALIZER not in finalizers:
            project = self._set_finalizers(project, [*finalizers, FINALIZER])
        self._report(project, self._namespace(request.namespace))
        return Result()

    def _namespace(self, name: str) -> Object:
        namespace = self._namespaces.get(name)
        if namespace is not None:
            return namespace
        try:
            return self._client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        except errors.AlreadyExistsError:
            return self._client.get("Namespace", name)

    def _delete_namespace(self, name: str) -> None:
        try:
            self._client.delete("Namespace", name)
        except errors.NotFoundError:
            pass

    def _set_finalizers(self, project: Object, finalizers: list[str]) -> Object:
        return self._client.update({**project, "metadata": {**project["metadata"], "finalizers": finalizers}})

    def _report(self, project: Object, namespace: Object) -> None:
        wanted = statuses.draft(project)
        status = wanted["status"]
        name = namespace["metadata"]["name"]
        if (namespace.get("status") or {}).get("phase") == "Terminating":
            message = f"namespace {name} is being deleted; delete the project too, or wait and create it again"
            conditions.set(wanted, "Ready", "False", reason="NamespaceTerminating", message=message, clock=self._clock)
            status["state"], status["errorMessage"] = "Error", message
        else:
            message = f"namespace {name} is there"
            conditions.set(wanted, "Ready", "True", reason="NamespaceActive", message=message, clock=self._clock)
            status["state"] = "Ready"
            status.pop("errorMessage", None)
        status.setdefault("phase", "Development")
        if status != project.get("status"):
            status["lastUpdateTime"] = timestamps.now(self._clock)
        statuses.write(self._client, project, wanted)


def sources(manager: Manager) -> list[controller.Source]:
    """Projects, and the namespaces of the same name."""
    return [
        controller.Source(manager.informer("Project"), controller.itself),
        controller.Source(
            manager.informer("Namespace"), lambda obj: [Request(obj["metadata"]["name"], obj["metadata"]["name"])]
        ),
    ]
