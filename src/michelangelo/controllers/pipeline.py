"""Pipeline: its manifest is checked, and each applied spec becomes a Revision that never changes.

`status.latestRevision` is what schedules and triggers may follow: the revision of the newest spec that came from the
main branch, or from no branch at all. A spec from any other branch gets its Revision too, and is what a run without
an explicit revision runs, but nothing moves to it by itself. It builds nothing and imports no code of the user's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import BY_LABEL, Informer
from michelangelo.controllers import arguments, statuses
from michelangelo.meta import causes, conditions, timestamps
from michelangelo.meta import labels as label_keys
from michelangelo.runtime import controller
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request, Result
from michelangelo.runtime.recorder import Recorder

__all__ = [
    "MAIN_BRANCHES",
    "PipelineReconciler",
    "check_manifest",
    "current_revision",
    "label_value",
    "owner_reference",
    "revision_names",
    "sources",
]

MAIN_BRANCHES: Final = ("main", "master")
_HEX: Final = re.compile(r"[0-9a-f]{12,}")


class PipelineReconciler:
    def __init__(
        self,
        client: Client,
        pipelines: Informer,
        revisions: Informer,
        *,
        clock: timestamps.Clock = timestamps.system_clock,
    ) -> None:
        self._client = client
        self._pipelines = pipelines
        self._revisions = revisions
        self._recorder = Recorder(client, "pipeline", clock=clock)
        self._clock = clock

    def reconcile(self, request: Request) -> Result:
        pipeline = self._pipelines.get(request.name, namespace=request.namespace)
        if pipeline is None or pipeline["metadata"].get("deletionTimestamp"):
            return Result()
        wanted = statuses.draft(pipeline)
        found = check_manifest(pipeline["spec"])
        if found:
            self._refuse(wanted, "; ".join(map(str, found)))
        else:
            self._accept(pipeline, wanted, self._revision(pipeline))
        statuses.write(self._client, pipeline, wanted)
        return Result()

    def _refuse(self, wanted: Object, message: str) -> None:
        wanted["status"].update(state="Error", errorMessage=message)
        conditions.set(wanted, "Ready", "False", reason="InvalidManifest", message=message, clock=self._clock)

    def _accept(self, pipeline: Object, wanted: Object, revision: Object) -> None:
        status, metadata = wanted["status"], revision["metadata"]
        status["state"] = "Ready"
        status.pop("errorMessage", None)
        if _branch(pipeline["spec"]) in ("", *MAIN_BRANCHES):
            status["latestRevision"] = {"namespace": metadata["namespace"], "name": metadata["name"]}
        message = f"revision {metadata['name']} can be run"
        conditions.set(wanted, "Ready", "True", reason="RevisionReady", message=message, clock=self._clock)

    def _revision(self, pipeline: Object) -> Object:
        """The Revision of the spec as it is now; made where there is none."""
        revision = current_revision(self._client, pipeline) or self._make(pipeline)
        if (revision.get("status") or {}).get("state") != "Ready":
            wanted = statuses.draft(revision)
            wanted["status"]["state"] = "Ready"
            revision = statuses.write(self._client, revision, wanted)
        return revision

    def _make(self, pipeline: Object) -> Object:
        for name in revision_names(pipeline):
            try:
                revision = self._client.create(self._document(pipeline, name))
            except errors.AlreadyExistsError:
                continue  # The same commit with another spec: the next name is made from the whole spec.
            self._recorder.event(pipeline, "Normal", "RevisionCreated", f"revision {name}")
            return revision
        raise errors.ConflictError(
            f"the names of the revisions of pipeline {pipeline['metadata']['name']} are taken by others"
        )

    def _document(self, pipeline: Object, name: str) -> Object:
        metadata, spec = pipeline["metadata"], pipeline["spec"]
        commit = spec.get("commit") or {}
        optional = {
            "owner": spec.get("owner"),
            "parent": self._newest(pipeline),
            "commit": commit or None,
            "gitRef": commit.get("gitRef"),
            "gitBranch": commit.get("branch"),
            "sourceDigest": (spec.get("manifest") or {}).get("sourceDigest"),
        }
        return {
            "apiVersion": pipeline["apiVersion"],
            "kind": "Revision",
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": {label_keys.PIPELINE: metadata["name"]},
                "ownerReferences": [owner_reference(pipeline)],
            },
            "spec": {
                "baseType": {"apiVersion": pipeline["apiVersion"], "kind": "Pipeline"},
                "baseResource": {"namespace": metadata["namespace"], "name": metadata["name"]},
                "content": spec,
                "revisionId": name.rpartition("-")[2],
                **{key: value for key, value in optional.items() if value},
            },
        }

    def _newest(self, pipeline: Object) -> dict[str, str] | None:
        """The revision before: the one that was made last."""
        metadata = pipeline["metadata"]
        known = self._revisions.by_index(BY_LABEL, f"{label_keys.PIPELINE}={metadata['name']}")
        own = [one for one in known if one["metadata"]["namespace"] == metadata["namespace"]]
        if not own:
            return None
        newest = max(own, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))
        return {"namespace": metadata["namespace"], "name": newest["metadata"]["name"]}


def check_manifest(spec: Mapping[str, Any], path: str = "spec") -> list[errors.FieldError]:
    """What keeps a pipeline spec that lies at `path` from being run."""
    manifest = spec.get("manifest") or {}
    found = []
    if manifest.get("type", "Uniflow") == "Yaml":
        if not manifest.get("content"):
            found.append(causes.required(f"{path}.manifest.content", "it is the workflow, written in YAML"))
    elif not (manifest.get("filePath") or manifest.get("uniflowTar")):
        detail = "name the Python file of the workflow, or pack it with `mactl pipeline apply`"
        found.append(causes.required(f"{path}.manifest.filePath", detail))
    elif not (manifest.get("uniflowFunction") or ":" in (manifest.get("filePath") or "")):
        found.append(causes.required(f"{path}.manifest.uniflowFunction", "name the workflow function"))
    if manifest.get("parameters") is not None:
        found += arguments.check_schema(manifest["parameters"], f"{path}.manifest.parameters")
    return found


def revision_names(pipeline: Object) -> Iterator[str]:
    """The names that the Revision of the present spec may have, in order: by commit, by source, by the whole spec.

    One commit or source may be applied with several specs; the first to come has the short-hand name.
    """
    spec = pipeline["spec"]
    given = [(spec.get("commit") or {}).get("gitRef"), (spec.get("manifest") or {}).get("sourceDigest")]
    whole = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    for text in (*given, whole):
        found = _HEX.search(str(text or "").lower().rpartition(":")[2])
        if found:
            yield f"pipeline-{pipeline['metadata']['name']}-{found[0][:12]}"


def current_revision(client: Client, pipeline: Object) -> Object | None:
    """The Revision of the spec as it is now, if it was made already."""
    metadata = pipeline["metadata"]
    for name in revision_names(pipeline):
        try:
            revision = client.get("Revision", name, namespace=metadata["namespace"])
        except errors.NotFoundError:
            return None
        owners = {one["uid"] for one in revision["metadata"].get("ownerReferences") or ()}
        if revision["spec"].get("content") == pipeline["spec"] and owners & {metadata["uid"]}:
            return revision
    return None


def label_value(name: str) -> str:
    """A name as the value of a label, which holds 63 characters: a longer one is cut, and made unique again."""
    if len(name) <= 63:
        return name
    return f"{name[:50].rstrip('.-_')}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def owner_reference(pipeline: Object) -> dict[str, Any]:
    metadata = pipeline["metadata"]
    return {
        "apiVersion": pipeline["apiVersion"],
        "kind": pipeline["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def sources(manager: Manager) -> list[controller.Source]:
    """Pipelines, and their Revisions: one that is deleted is made again."""
    return [
        controller.Source(manager.informer("Pipeline"), controller.itself),
        controller.Source(manager.informer("Revision"), controller.label(label_keys.PIPELINE)),
    ]


def _branch(spec: Mapping[str, Any]) -> str:
    return str((spec.get("commit") or {}).get("branch") or "").removeprefix("refs/heads/")
