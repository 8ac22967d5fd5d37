"""What an identity may do. The owner may do everything; a process of a run may do what its run needs, in its namespace.

It decides on the request alone, but for objects that a run's token may touch only when they belong to the run: there
the object as it is sent and as it is stored both have to (`check_object`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from michelangelo import errors
from michelangelo.apiserver import refusals
from michelangelo.meta import labels, selectors
from michelangelo.runtime import leases

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.apiserver.auth import Identity, RunScope
    from michelangelo.apiserver.options import Subresource
    from michelangelo.client.client import Object

__all__ = ["Attributes", "authorize", "authorize_blobs", "authorize_collection", "authorize_logs", "check_object"]

_READ: Final = ("get", "list", "watch")
_WRITE: Final = ("create", "update", "patch")
_SHARED: Final = ("Project", "Pipeline", "Revision", "CachedOutput")
"""What every run of a namespace may read: what it is made from, and earlier results."""
_CLAIM: Final = re.compile(r"cache-[0-9a-f]{40}")
"""Leases of this name are the claims of `engine.claims`."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request asks for."""

    verb: str
    kind: Kind
    namespace: str
    name: str = ""
    subresource: Subresource = ""
    label_selector: str = ""
    field_selector: str = ""


def authorize(identity: Identity, wanted: Attributes) -> None:
    """Raises ForbiddenError."""
    if identity.run is not None and not _run_may(identity.run, wanted):
        raise _forbidden(identity, wanted)


def check_object(identity: Identity, wanted: Attributes, obj: Object) -> None:
    """Whether an object that `wanted` reads or writes belongs to the run. Raises ForbiddenError."""
    if (wanted.kind.kind, wanted.verb) == ("Lease", "get"):
        # By name, which `authorize` has seen.
        return
    if identity.run is not None and not _belongs(identity.run, wanted.kind, obj):
        raise _forbidden(identity, wanted)


def authorize_logs(identity: Identity, namespace: str, run: str) -> None:
    """Raises ForbiddenError."""
    scope = identity.run
    if scope is not None and (scope.namespace, scope.run) != (namespace, run):
        raise errors.ForbiddenError(f"{identity.user} cannot read the logs of run {namespace}/{run}")


def authorize_blobs(identity: Identity) -> None:
    """Blobs are named by their content: who knows a digest was told it by an object that it may read."""


def authorize_collection(identity: Identity) -> None:
    """Raises ForbiddenError: what a run refers to is not all that is referred to."""
    if identity.run is not None:
        raise errors.ForbiddenError(f"{identity.user} cannot collect blobs")


def _run_may(scope: RunScope, wanted: Attributes) -> bool:
    kind, verb = wanted.kind.kind, wanted.verb
    if wanted.namespace != scope.namespace or (scope.read_only and verb not in _READ):
        return False
    if kind in _SHARED:
        # A cached output that cannot be used any more is replaced.
        return verb in _READ or (kind == "CachedOutput" and verb in ("delete", *_WRITE))
    if kind == "PipelineRun":
        return _may_touch_run(scope, wanted)
    if kind in ("TaskRun", "Signal"):
        if verb in ("list", "watch"):
            return _is_selected(labels.PIPELINE_RUN, scope.run, wanted)
        # Of which run a single one is, `check_object` sees.
        return verb == "get" or (kind == "TaskRun" and verb in _WRITE)
    if kind == "Secret":
        # By name only: a run hands its tasks what they ask for.
        return verb == "get" and not scope.read_only
    if kind == "Lease":
        return _may_touch_lease(scope, wanted)
    return kind == "Event" and verb in _WRITE


def _may_touch_lease(scope: RunScope, wanted: Attributes) -> bool:
    """Its own; the claims by which the runs of a project say who computes what; and, to be read, by whom these runs are
    driven."""
    verb, name = wanted.verb, wanted.name
    if verb in ("list", "watch"):
        return wanted.label_selector == labels.CACHE_CLAIM
    if verb == "get" and name.startswith(leases.run_lease_name("")):
        return True
    own = name in ("", leases.run_lease_name(scope.run)) or _CLAIM.fullmatch(name) is not None
    return own and verb in ("get", "delete", *_WRITE)


def _may_touch_run(scope: RunScope, wanted: Attributes) -> bool:
    """Its own run, and those that it starts; which single ones these are, `check_object` sees."""
    verb = wanted.verb
    if verb in ("list", "watch"):
        # A watch of one's own run, to hear of its end, is by name.
        own = selectors.parse_fields(wanted.field_selector).required("metadata.name") == scope.run
        return own or _is_selected(labels.PARENT_RUN, scope.run, wanted)
    if wanted.name == scope.run:
        return verb == "get" or (verb in _WRITE and wanted.subresource == "status")
    return verb == "get" or (verb in _WRITE and not wanted.subresource)


def _is_selected(key: str, run: str, wanted: Attributes) -> bool:
    """Whether only objects with that label are asked for."""
    own_label = {"metadata": {"labels": {key: run}}}
    return selectors.index_terms(own_label) <= selectors.parse_labels(wanted.label_selector).equality_terms()


def _is_child(scope: RunScope, obj: Object) -> bool:
    """Whether a run is one that the run may have started: of a registered pipeline, and taking over nothing."""
    metadata, spec = obj.get("metadata"), obj.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return False
    found, owners = metadata.get("labels"), metadata.get("ownerReferences")
    return (
        isinstance(found, dict)
        and found.get(labels.PARENT_RUN) == scope.run
        and isinstance(owners, list)
        and any(isinstance(one, dict) and one.get("uid") == scope.uid for one in owners)
        and not spec.get("pipelineSpec")
        and not spec.get("resume")
    )


def _belongs(scope: RunScope, kind: Kind, obj: Object) -> bool:
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if kind.kind in ("TaskRun", "Signal"):
        found = metadata.get("labels")
        own = isinstance(found, dict) and found.get(labels.PIPELINE_RUN) == scope.run
        # Entries of a journal are named by their run: nobody may take the names of another one's.
        entry = re.compile(rf"{re.escape(scope.run)}-[0-9a-f]{{12}}-[0-9]+")
        return own and (kind.kind == "Signal" or entry.fullmatch(str(metadata.get("name"))) is not None)
    if kind.kind == "PipelineRun":
        if metadata.get("name") != scope.run:
            return _is_child(scope, obj)
        # A later run of the same name is another one.
        return metadata.get("uid") in (None, "", scope.uid)
    if kind.kind == "Lease":
        name = str(metadata.get("name"))
        return name == leases.run_lease_name(scope.run) or _CLAIM.fullmatch(name) is not None
    if kind.kind == "Event":
        involved = obj.get("involvedObject")
        name = involved.get("name", "") if isinstance(involved, dict) else ""
        return isinstance(name, str) and (name == scope.run or name.startswith(f"{scope.run}-"))
    return True


def _forbidden(identity: Identity, wanted: Attributes) -> errors.ForbiddenError:
    kind = wanted.kind
    resource = f"{kind.plural}/{wanted.subresource}" if wanted.subresource else kind.plural
    where = f' in the namespace "{wanted.namespace}"' if wanted.namespace else " at the cluster scope"
    why = f'User "{identity.user}" cannot {wanted.verb} resource "{resource}" in API group "{kind.group}"{where}'
    return refusals.forbidden(kind, wanted.name, why)
