"""The runs that a run starts, as objects: how they are named, made, watched and ended.

A name is computed from the parent and the step, so that a driver that takes over finds the same run, and there are
never two. A run belongs to its parent and is deleted with it. Who drives it is its host's matter (`ChildHost`), or that
of a server's controllers. When what happens is engine/children.py's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.engine.steps import Step
from michelangelo.engine.watcher import Watcher
from michelangelo.meta import labels

__all__ = ["FAILURES", "SUCCESSES", "ChildHost", "ChildRuns", "child_name", "state_of"]

SUCCESSES: Final = ("Succeeded", "Skipped")
FAILURES: Final = ("Failed", "Killed")


class ChildHost(Protocol):
    """Sees to it that runs are driven where no server does."""

    def drive(self, run: Object) -> None:
        """Have `run` driven to its end; returns at once. Raises WorkflowError where that cannot be."""
        ...

    def close(self) -> None:
        """Leave nothing running. What has not ended can go on later."""
        ...


class ChildRuns:
    """The runs of one parent, as objects."""

    def __init__(self, client: Client, parent: Object, host: ChildHost | None = None) -> None:
        """`host`: None where controllers see to new runs."""
        self._client = client
        self._host = host
        self._parent = parent
        self._name = str(parent["metadata"]["name"])
        self.namespace = str(parent["metadata"]["namespace"])

    def name(self, step: Step) -> str:
        return child_name(self._parent, step.id)

    def ensure(self, step: Step) -> Object:
        """The run of the step: found, or made, and then driven. Raises WorkflowError, ApiError."""
        wanted = self._document(step)
        try:
            run = self._client.create(wanted)
        except errors.AlreadyExistsError:
            run = self._client.get("PipelineRun", wanted["metadata"]["name"], namespace=self.namespace)
            owners = [one.get("uid") for one in run["metadata"].get("ownerReferences") or ()]
            if self._parent["metadata"]["uid"] not in owners:
                raise
        if self._host is not None and state_of(run) not in (*SUCCESSES, *FAILURES):
            self._host.drive(run)
        return run

    def watch(self, deliver: Callable[[str, Object], None]) -> Callable[[], None]:
        """Begin to deliver events of all runs of the parent, present ones first; returns how to stop."""
        watcher = Watcher(
            self._client,
            "PipelineRun",
            deliver,
            namespace=self.namespace,
            label_selector=f"{labels.PARENT_RUN}={self._name}",
        )
        watcher.start()
        return watcher.stop

    def kill(self, name: str) -> None:
        """Ask for the end of a run; one that has ended, or is gone, does not mind."""
        try:
            self._client.patch("PipelineRun", name, {"spec": {"kill": True}}, namespace=self.namespace)
        except errors.NotFoundError:
            return

    def _document(self, step: Step) -> Object:
        request = step.request
        assert request is not None
        parent = self._parent
        given = {
            "args": step.arguments["args"],
            "kwArgs": step.arguments["kwargs"],
            "environ": dict(request.environ),
        }
        spec: Object = {
            "pipeline": {"namespace": self.namespace, "name": request.pipeline},
            "input": {key: value for key, value in given.items() if value},
        }
        if request.revision:
            spec["revision"] = {"namespace": self.namespace, "name": request.revision}
        if request.actor:
            spec["actor"] = {"name": request.actor}
        owner = {"apiVersion": parent["apiVersion"], "kind": parent["kind"], "name": self._name}
        return {
            "apiVersion": parent["apiVersion"],
            "kind": "PipelineRun",
            "metadata": {
                "name": self.name(step),
                "namespace": self.namespace,
                "labels": {labels.PARENT_RUN: self._name},
                "ownerReferences": [{**owner, "uid": parent["metadata"]["uid"], "controller": True}],
            },
            "spec": spec,
        }


def child_name(parent: Object, step: str) -> str:
    """`run-YYYYMMDD-HHMMSS-<12 hex>`: the second is the parent's, the digits are those of its uid and the step."""
    metadata = parent["metadata"]
    made = datetime.fromisoformat(metadata["creationTimestamp"]).astimezone(UTC)
    digest = hashlib.sha256(f"{metadata['uid']}/{step}".encode()).hexdigest()[:12]
    return f"run-{made:%Y%m%d-%H%M%S}-{digest}"


def state_of(run: Object) -> str:
    """The state of a run; empty before anybody has looked at it."""
    return str((run.get("status") or {}).get("state") or "")
