"""What a deletion does to one object: preconditions, finalizers, propagation. Pure; it writes nothing.

As in Kubernetes, owners' policies are finalizers that the garbage collector removes: `foregroundDeletion` (dependents
first) and `orphan` (dependents lose the reference). A Namespace has `kubernetes` in `spec.finalizers` until it is
empty.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

from michelangelo.apiserver import refusals
from michelangelo.meta import timestamps

if TYPE_CHECKING:
    from datetime import datetime

    from michelangelo.api.v2.registry import Kind
    from michelangelo.apiserver.options import DeleteOptions
    from michelangelo.client.client import Object

__all__ = ["FOREGROUND", "ORPHAN", "check", "is_due", "mark"]

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"


def check(kind: Kind, obj: Object, how: DeleteOptions) -> None:
    """Raises ConflictError when a precondition does not hold."""
    metadata = obj["metadata"]
    if how.uid and how.uid != metadata["uid"]:
        raise refusals.conflict(
            kind,
            metadata["name"],
            f"Precondition failed: UID in precondition: {how.uid}, UID in object meta: {metadata['uid']}",
        )
    if how.resource_version and how.resource_version != metadata["resourceVersion"]:
        raise refusals.conflict(
            kind,
            metadata["name"],
            f"Precondition failed: ResourceVersion in precondition: {how.resource_version}, "
            f"ResourceVersion in object meta: {metadata['resourceVersion']}",
        )


def mark(kind: Kind, obj: Object, how: DeleteOptions, now: datetime) -> Object | None:
    """The object as it must be written before it can go, or None where it can go at once."""
    marked = copy.deepcopy(obj)
    metadata = marked["metadata"]
    finalizers = _finalizers(metadata.get("finalizers") or [], how)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if not finalizers and not _spec_finalizers(kind, marked):
        return None
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = timestamps.format_seconds(now)
        metadata["deletionGracePeriodSeconds"] = 0
        if "generation" in metadata:
            metadata["generation"] += 1
        if kind.kind == "Namespace":
            marked["status"] = {**(marked.get("status") or {}), "phase": "Terminating"}
    return marked


def is_due(kind: Kind, obj: Object) -> bool:
    """Whether an object that is marked for deletion has nothing left to wait for."""
    metadata = obj["metadata"]
    return (
        bool(metadata.get("deletionTimestamp")) and not metadata.get("finalizers") and not _spec_finalizers(kind, obj)
    )


def _finalizers(present: list[str], how: DeleteOptions) -> list[str]:
    if how.propagation is None:
        return present
    kept = [name for name in present if name not in (FOREGROUND, ORPHAN)]
    if how.propagation == "Foreground":
        return [*kept, FOREGROUND]
    if how.propagation == "Orphan":
        return [*kept, ORPHAN]
    return kept


def _spec_finalizers(kind: Kind, obj: Object) -> bool:
    return kind.kind == "Namespace" and bool((obj.get("spec") or {}).get("finalizers"))
