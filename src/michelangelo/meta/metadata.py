"""What objects carry besides what is their kind's: the typed ObjectMeta and conditions, and the rules that hold for
it whatever the kind.

The rules are pure functions on plain metadata that return every field error at once. Filling in what the server decides
(uid, creationTimestamp, generation, resourceVersion) is the server's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator

from michelangelo import errors
from michelangelo.meta import causes, names, timestamps
from michelangelo.meta.document import Bool, Document, Enumeration, FreeForm, Int64, Timestamp

__all__ = [
    "ANNOTATIONS_BYTES",
    "Condition",
    "ConditionStatus",
    "ObjectMeta",
    "OwnerReference",
    "ResourceIdentifier",
    "validate",
    "validate_update",
]

ANNOTATIONS_BYTES: Final = 256 * 1024
"""Kubernetes' bound on all keys and values of an object's annotations together."""

_STANDARD_FINALIZERS: Final = frozenset({"foregroundDeletion", "orphan", "kubernetes"})
_FIXED: Final = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


class ResourceIdentifier(Document):
    """A reference to another object."""

    namespace: str | None = None
    """Namespace of the object; empty for that of the object that refers to it."""
    name: str | None = None
    """Name of the object."""


class OwnerReference(Document):
    """An object that this one belongs to: it is deleted with its last owner."""

    api_version: str
    """Group and version of the owner."""
    kind: str
    """Kind of the owner."""
    name: str
    """Name of the owner."""
    uid: str
    """UID of the owner, so that a later object of the same name is not taken for it."""
    controller: Bool | None = None
    """Whether the owner is the one that manages this object; at most one is."""
    block_owner_deletion: Bool | None = None
    """Whether a foreground deletion of the owner waits for this object."""


class ObjectMeta(Document):
    """Name, identity, labels and life cycle of an object."""

    name: str | None = None
    """Unique within a namespace, and for ever the same. Needed unless generateName is given."""
    generate_name: str | None = None
    """Prefix of a unique name that the server makes up when name is empty."""
    namespace: str | None = None
    """The project that the object belongs to; a namespace is a project."""
    uid: str | None = None
    """Unique over space and time. Set by the server."""
    resource_version: str | None = None
    """Version of the object, opaque; an update that carries an older one is refused. Set by the server."""
    generation: Int64 | None = None
    """Grows by one whenever the spec changes. Set by the server."""
    creation_timestamp: Timestamp | None = None
    """When the object was created. Set by the server."""
    deletion_timestamp: Timestamp | None = None
    """When deletion was asked for; the object goes when its finalizers are gone. Set by the server."""
    deletion_grace_period_seconds: Int64 | None = None
    """Seconds until the object may go once deletion was asked for. Set by the server."""
    labels: dict[str, str] | None = None
    """Keys and values to select objects by."""
    annotations: dict[str, str] | None = None
    """Keys and values that tools and people attach; not for selecting."""
    owner_references: list[OwnerReference] | None = None
    """Objects that this one belongs to; it is deleted when all of them are gone."""
    finalizers: list[str] | None = None
    """Who has to finish something before the object may go; each removes its own entry."""
    managed_fields: Annotated[list[FreeForm] | None, BeforeValidator(lambda _: None)] = Field(None, exclude=True)
    """Accepted for Kubernetes' clients and not kept."""
    self_link: Annotated[str | None, BeforeValidator(lambda _: None)] = Field(None, exclude=True)
    """Accepted for old clients and not kept."""


class ConditionStatus(Enumeration):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Document):
    """One observation about the object."""

    type: str
    """What is observed, in CamelCase and such that True is good."""
    status: ConditionStatus
    """Whether it holds: True, False or Unknown."""
    reason: str | None = None
    """Why, as one CamelCase word for programs."""
    message: str | None = None
    """Why, and what to do next, for people."""
    last_transition_time: Timestamp | None = None
    """When the status last changed."""
    observed_generation: Int64 | None = None
    """The metadata.generation that the observation is about."""
    metadata: FreeForm | None = None
    """State of whoever sets the condition, kept between its looks at the object."""

    @model_validator(mode="before")
    @classmethod
    def _read_upstream_time(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        millis = data.get("lastUpdatedTimestamp", data.get("last_updated_timestamp"))
        # Protobuf's JSON writes an int64 as text.
        if not isinstance(millis, int | str) or not str(millis).isdecimal() or len(str(millis)) > 14:
            return data
        kept = {
            key: value for key, value in data.items() if key not in ("lastUpdatedTimestamp", "last_updated_timestamp")
        }
        if int(millis) and "lastTransitionTime" not in kept:
            kept["lastTransitionTime"] = timestamps.format_seconds(timestamps.of_millis(int(millis)))
        return kept


def validate(
    metadata: dict[str, Any], *, namespaced: bool, check_name: Callable[[str], list[str]] = names.check_dns_subdomain
) -> list[errors.FieldError]:
    """Every wrong field of a metadata document whose types are right. `check_name` is the kind's rule for names."""
    found: list[errors.FieldError] = []
    name, prefix = metadata.get("name") or "", metadata.get("generateName") or ""
    if name:
        found += (causes.invalid("metadata.name", name, message) for message in check_name(name))
    elif prefix:
        # A prefix may end with what a name may not: the check is on what a made-up name would look like.
        found += (causes.invalid("metadata.generateName", prefix, message) for message in check_name(prefix[:58] + "x"))
    else:
        found.append(causes.required("metadata.name", "name or generateName is required"))
    found += _validate_namespace(metadata.get("namespace") or "", namespaced)
    found += _validate_labels(metadata.get("labels") or {})
    found += _validate_annotations(metadata.get("annotations") or {})
    found += _validate_owners(metadata.get("ownerReferences") or [])
    found += _validate_finalizers(metadata.get("finalizers") or [])
    return found


def validate_update(old: dict[str, Any], new: dict[str, Any]) -> list[errors.FieldError]:
    """What an update may not change. A field that `new` leaves out counts as unchanged: the server fills it in."""
    found = [
        causes.invalid(f"metadata.{field}", new[field], "field is immutable")
        for field in _FIXED
        if new.get(field) is not None and new[field] != old.get(field)
    ]
    if old.get("deletionTimestamp"):
        added = [one for one in new.get("finalizers") or [] if one not in (old.get("finalizers") or [])]
        if added:
            detail = "no new finalizers can be added if the object is being deleted, found new finalizers "
            found.append(causes.forbidden("metadata.finalizers", detail + ", ".join(added)))
    return found


def _validate_namespace(namespace: str, namespaced: bool) -> list[errors.FieldError]:
    if not namespaced:
        return [causes.forbidden("metadata.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [causes.required("metadata.namespace")]
    return [causes.invalid("metadata.namespace", namespace, message) for message in names.check_dns_label(namespace)]


def _validate_labels(labels: dict[str, str]) -> list[errors.FieldError]:
    found: list[errors.FieldError] = []
    for key, value in labels.items():
        found += (causes.invalid("metadata.labels", key, message) for message in names.check_label_key(key))
        found += (causes.invalid("metadata.labels", value, message) for message in names.check_label_value(value))
    return found


def _validate_annotations(annotations: dict[str, str]) -> list[errors.FieldError]:
    found: list[errors.FieldError] = []
    size = 0
    for key, value in annotations.items():
        # Kubernetes lets annotation keys have capitals in the prefix: it looks at the lower-cased key.
        messages = names.check_label_key(key.lower())
        found += (causes.invalid("metadata.annotations", key, message) for message in messages)
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_BYTES:
        found.append(causes.too_long("metadata.annotations", ANNOTATIONS_BYTES))
    return found


def _validate_owners(owners: list[dict[str, Any]]) -> list[errors.FieldError]:
    found: list[errors.FieldError] = []
    for index, owner in enumerate(owners):
        found += (
            causes.invalid(f"metadata.ownerReferences[{index}].{field}", "", f"{what} must not be empty")
            for field, what in (("apiVersion", "version"), ("kind", "kind"), ("name", "name"), ("uid", "uid"))
            if not owner.get(field)
        )
    managers = [owner.get("name", "") for owner in owners if owner.get("controller")]
    if len(managers) > 1:
        detail = (
            "Only one reference can have Controller set to true. "
            f"Found {len(managers)} owner references with Controller set to true: {', '.join(managers)}"
        )
        found.append(causes.invalid("metadata.ownerReferences", managers, detail))
    return found


def _validate_finalizers(finalizers: list[str]) -> list[errors.FieldError]:
    found: list[errors.FieldError] = []
    for index, finalizer in enumerate(finalizers):
        path = f"metadata.finalizers[{index}]"
        messages = names.check_label_key(finalizer)
        if not messages and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            messages = ["name is neither a standard finalizer name nor is it fully qualified"]
        found += (causes.invalid(path, finalizer, message) for message in messages)
    if {"foregroundDeletion", "orphan"} <= set(finalizers):
        detail = "foregroundDeletion and orphan cannot both be set"
        found.append(causes.invalid("metadata.finalizers", finalizers, detail))
    return found
