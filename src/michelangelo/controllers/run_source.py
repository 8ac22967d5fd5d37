"""What a PipelineRun runs: its pipeline as of one Revision, found and pinned once, so that later edits change nothing.

It starts nothing; everything wrong with the request is a WorkflowError that says what to do, before anything has
started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.controllers import arguments, pipeline
from michelangelo.meta import labels as label_keys

__all__ = ["RunSource", "pinned_metadata", "resolve"]


@dataclass(frozen=True, slots=True)
class RunSource:
    """A pipeline as a run sees it: name and spec; the object and the revision it stands for, where there are any."""

    name: str
    spec: Object
    owner: Object | None = None
    revision: str = ""

    def status(self) -> dict[str, Any]:
        """The fields of the run's status that pin it."""
        metadata: Object = {"name": self.name}
        if self.owner is not None:
            metadata = {"name": self.name, "namespace": self.owner["metadata"]["namespace"]}
        if self.revision:
            metadata["labels"] = {label_keys.REVISION: pipeline.label_value(self.revision)}
            metadata["annotations"] = {label_keys.REVISION: self.revision}
        found: dict[str, Any] = {
            "sourcePipeline": {
                "pipeline": {
                    "apiVersion": "michelangelo.api/v2",
                    "kind": "Pipeline",
                    "metadata": metadata,
                    "spec": _without_graph(self.spec),
                }
            }
        }
        digest = (self.spec.get("manifest") or {}).get("sourceDigest")
        return {**found, "sourceDigest": digest} if digest else found


def _without_graph(spec: Object) -> Object:
    """The graph is for people, who find it on the pipeline and its revisions: a copy in every run would be large."""
    manifest = spec.get("manifest")
    if not isinstance(manifest, dict) or "graph" not in manifest:
        return spec
    return {**spec, "manifest": {name: value for name, value in manifest.items() if name != "graph"}}


def resolve(client: Client, run: Object) -> RunSource:
    """The source of a run that has not started. Raises WorkflowError (no such pipeline, not ready, wrong arguments)."""
    pinned = ((run.get("status") or {}).get("sourcePipeline") or {}).get("pipeline")
    if pinned:
        source = _pinned(client, run, pinned)
    elif run["spec"].get("pipelineSpec") is not None:
        source = _inline(run)
    else:
        source = _registered(client, run)
    found = pipeline.check_manifest(source.spec)
    if found:
        raise errors.SourceError(f"pipeline {source.name} cannot be run: " + "; ".join(map(str, found)))
    _check_arguments(run, source)
    return source


def pinned_metadata(run: Object, source: RunSource) -> Object:
    """The run's metadata with the labels to find it by; it belongs to its pipeline, and is deleted with it."""
    metadata = dict(run["metadata"])
    labels = dict(metadata.get("labels") or {})
    if source.owner is not None:
        labels[label_keys.PIPELINE] = source.name
        reference = {**pipeline.owner_reference(source.owner), "controller": False}
        owners = list(metadata.get("ownerReferences") or ())
        if all(one["uid"] != reference["uid"] for one in owners):
            metadata["ownerReferences"] = [*owners, reference]
    if source.revision:
        labels[label_keys.REVISION] = pipeline.label_value(source.revision)
    if labels:
        metadata["labels"] = labels
    return metadata


def _pinned(client: Client, run: Object, document: Object) -> RunSource:
    """What was pinned by an earlier look at the run."""
    metadata = document.get("metadata") or {}
    owner = None
    if run["spec"].get("pipelineSpec") is None:
        owner = _pipeline(client, metadata["namespace"], metadata["name"])
    revision = (metadata.get("annotations") or {}).get(label_keys.REVISION) or ""
    return RunSource(metadata["name"], document["spec"], owner, revision)


def _inline(run: Object) -> RunSource:
    name = (run["spec"].get("pipeline") or {}).get("name") or f"devrun-{run['metadata']['name']}"
    return RunSource(name, run["spec"]["pipelineSpec"])


def _registered(client: Client, run: Object) -> RunSource:
    namespace = run["metadata"]["namespace"]
    reference = run["spec"].get("pipeline") or {}
    if not reference.get("name"):
        raise errors.SourceError("the run names no pipeline: set spec.pipeline.name or spec.pipelineSpec")
    if reference.get("namespace") not in (None, "", namespace):
        raise errors.SourceError(
            f"pipeline {reference['namespace']}/{reference['name']} is in another project: "
            f"a run is of a pipeline of its own project, {namespace}"
        )
    owner = _pipeline(client, namespace, reference["name"])
    wanted = (run["spec"].get("revision") or {}).get("name")
    if not wanted:
        revision = pipeline.current_revision(client, owner)
        # Where its controller has not come to it yet, the spec itself is what the revision will hold.
        name = revision["metadata"]["name"] if revision else next(iter(pipeline.revision_names(owner)))
        return RunSource(reference["name"], owner["spec"], owner, name)
    try:
        revision = client.get("Revision", wanted, namespace=namespace)
    except errors.NotFoundError:
        raise errors.SourceError(
            f"pipeline {reference['name']} has no revision {wanted}; see `mactl get revision -n {namespace}`"
        ) from None
    base = revision["spec"].get("baseResource") or {}
    if base.get("name") != reference["name"]:
        raise errors.SourceError(f"revision {wanted} is one of {base.get('name')}, not of pipeline {reference['name']}")
    return RunSource(reference["name"], revision["spec"]["content"], owner, wanted)


def _pipeline(client: Client, namespace: str, name: str) -> Object:
    try:
        return client.get("Pipeline", name, namespace=namespace)
    except errors.NotFoundError:
        raise errors.SourceError(
            f"there is no pipeline {name} in project {namespace}; register it with `mactl pipeline apply`"
        ) from None


def _check_arguments(run: Object, source: RunSource) -> None:
    schema = (source.spec.get("manifest") or {}).get("parameters")
    if schema is None:
        return
    given = run["spec"].get("input") or {}
    found = arguments.check(schema, given.get("args") or (), given.get("kwArgs") or {})
    if found:
        lines = "".join(f"\n  {error}" for error in found)
        raise errors.ArgumentsError(f"the arguments do not fit pipeline {source.name}:{lines}", errors=found)
