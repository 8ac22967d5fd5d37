"""What may be stored: from the document that a caller sent to the one that is written, or all that is wrong with it.

The form of an object and what may change in it are its model's to say (`api.v2`); this module adds what the server
decides (uid, timestamps, generation, which part a subresource may touch) and the rules about names that no model can
know. It reads and writes no store.

When a kind is one that people edit, its annotations say when it, and when its spec, was last written (microseconds
since 1970, upstream's keys). They are annotations and not labels, as upstream has them, so that a write does not change
the index.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from michelangelo import errors
from michelangelo.api.v2 import project, registry
from michelangelo.apiserver import refusals
from michelangelo.meta import causes, labels, names, timestamps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from michelangelo.api.v2.registry import Kind
    from michelangelo.apiserver.options import Subresource, WriteOptions
    from michelangelo.client.client import Object

__all__ = ["check_identity", "check_name", "create", "is_system_namespace", "update"]

_SERVER_SET: Final = (
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
)
_STAMPS: Final = (labels.UPDATE_TIMESTAMP, labels.SPEC_UPDATE_TIMESTAMP)


def is_system_namespace(namespace: str) -> bool:
    """Namespaces that belong to no project, and that are there without anybody making them."""
    return namespace == "default" or namespace.startswith("kube-")


def create(kind: Kind, namespace: str, obj: Object, now: datetime, options: WriteOptions) -> Object:
    """The new object as it is to be stored, with a name. Raises BadRequestError, InvalidError."""
    given = _addressed(kind, namespace, obj)
    metadata = given["metadata"]
    if metadata.get("resourceVersion"):
        raise errors.BadRequestError("resourceVersion should not be set on objects to be created")
    for field in _SERVER_SET:
        metadata.pop(field, None)
    if kind.status_subresource:
        given.pop("status", None)
    if kind.kind == "Namespace":
        _open(given)
    admitted = _checked(kind, given, _project_errors(kind, metadata), options)
    metadata = admitted["metadata"]
    if not metadata.get("name"):
        metadata["name"] = names.generate_name(metadata["generateName"])
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = timestamps.format_seconds(now)
    if kind.group == registry.GROUP:
        metadata["generation"] = 1
    if _stamped(kind):
        _stamp(admitted, now, _STAMPS)
    return admitted


def check_name(kind: Kind, name: str, wanted: Object) -> None:
    """Raises BadRequestError where the body is no object of the name that the URL has, whether that exists or not."""
    metadata = wanted.get("metadata")
    if not isinstance(metadata, dict):
        raise errors.BadRequestError(f"{kind.kind} {name}: metadata must be an object")
    if metadata.get("name", "") != name:
        raise errors.BadRequestError(
            f"the name of the object ({metadata.get('name', '')}) does not match the name on the URL ({name})"
        )


def check_identity(kind: Kind, current: Object, wanted: Object) -> None:
    """Raises ConflictError when the caller named another state or incarnation than the current one, BadRequestError
    when it is another object or none at all."""
    name = current["metadata"]["name"]
    check_name(kind, name, wanted)
    metadata = wanted["metadata"]
    uid, present = metadata.get("uid"), current["metadata"]["uid"]
    if uid and uid != present:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {present}"
        raise refusals.conflict(kind, name, why)
    version = metadata.get("resourceVersion")
    if version and version != current["metadata"]["resourceVersion"]:
        raise refusals.modified(kind, name)


def update(
    kind: Kind, current: Object, wanted: Object, subresource: Subresource, now: datetime, options: WriteOptions
) -> Object:
    """`current` as `wanted` changes it; equal to `current` where nothing changes. Raises BadRequestError,
    InvalidError."""
    if subresource == "status" and not kind.status_subresource:
        raise errors.NotFoundError(f"{kind.kind} has no status subresource: its status is written with the object")
    given = _addressed(kind, current["metadata"].get("namespace", ""), wanted)
    if subresource == "finalize":
        return _finalized(current, given)
    if subresource == "status":
        given = {**current, "status": given["status"]} if "status" in given else _without(current, "status")
        given["metadata"] = dict(current["metadata"])
    else:
        _keep(kind, given, current)
    admitted = _checked(kind, given, _project_errors(kind, given["metadata"]), options)
    found = kind.model.check_update(current, admitted)
    if found:
        raise refusals.invalid(kind, current["metadata"]["name"], found)
    if admitted == current:
        return admitted
    changed_spec = _without(admitted, "metadata", *_own(kind)) != _without(current, "metadata", *_own(kind))
    if changed_spec and "generation" in current["metadata"]:
        admitted["metadata"]["generation"] = current["metadata"]["generation"] + 1
    if _stamped(kind):
        _stamp(admitted, now, _STAMPS if changed_spec else _STAMPS[:1])
    return admitted


def _addressed(kind: Kind, namespace: str, obj: Object) -> Object:
    """A copy that may be changed, whose apiVersion, kind and namespace are those of the request."""
    if not isinstance(obj, dict):
        raise errors.BadRequestError(f"the body must be a {kind.kind}, an object; it is a {causes.type_name(obj)}")
    version = obj.get("apiVersion") or obj.get("api_version")
    if version and version != kind.api_version:
        raise errors.BadRequestError(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    metadata = obj.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise errors.BadRequestError(f"metadata must be an object; it is a {causes.type_name(metadata)}")
    metadata = dict(metadata)
    if kind.namespaced:
        if kind.kind == "Project" and not namespace:
            namespace = str(metadata.get("namespace") or metadata.get("name") or "")
        if metadata.setdefault("namespace", namespace) != namespace:
            raise errors.BadRequestError(
                f"the namespace of the provided object ({metadata['namespace']}) does not match the namespace sent on "
                f"the request ({namespace})"
            )
    sent = obj.get("kind")
    if sent and sent != kind.kind:
        found = [causes.invalid("kind", sent, f"must be {kind.kind}")]
        raise refusals.invalid(replace(kind, kind=str(sent)), str(metadata.get("name") or ""), found)
    given = {name: value for name, value in obj.items() if name != "api_version"}
    return {**given, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def _checked(kind: Kind, given: Object, found: Sequence[errors.FieldError], options: WriteOptions) -> Object:
    validated = kind.model.check(given)
    wrong = [*validated.errors, *found]
    unknown = validated.unknown if options.field_validation == "Strict" else ()
    metadata = given["metadata"]
    name = str(metadata.get("name") or metadata.get("generateName") or "")
    if wrong:
        wrong += [errors.FieldError(path, "unknown field", "FieldValueForbidden") for path in unknown]
        raise refusals.invalid(kind, name, wrong)
    if unknown:
        fields = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise errors.BadRequestError(
            f'{kind.kind} "{name}" in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"strict decoding error: {fields}"
        )
    if options.field_validation == "Warn":
        options.warnings.extend(f'unknown field "{path}"' for path in validated.unknown)
    return validated.object


def _project_errors(kind: Kind, metadata: dict[str, Any]) -> list[errors.FieldError]:
    if kind.kind != "Project":
        return []
    if not metadata.get("name") and metadata.get("generateName"):
        return [
            causes.required("metadata.name", "a project is named as its namespace, so generateName is not for projects")
        ]
    return project.check_placement(metadata)


def _open(namespace: Object) -> None:
    """A new namespace: `kubernetes` in `spec.finalizers` holds it until it was emptied."""
    name = namespace["metadata"].get("name", "")
    if name and isinstance(namespace["metadata"].get("labels", {}), dict):
        found = namespace["metadata"].get("labels") or {}
        namespace["metadata"]["labels"] = {**found, "kubernetes.io/metadata.name": name}
    namespace["spec"] = {"finalizers": ["kubernetes"]}
    namespace["status"] = {"phase": "Active"}


def _finalized(current: Object, given: Object) -> Object:
    spec = given.get("spec")
    finalizers = spec.get("finalizers") if isinstance(spec, dict) else None
    if finalizers is not None and not (
        isinstance(finalizers, list) and all(isinstance(one, str) for one in finalizers)
    ):
        raise errors.BadRequestError("spec.finalizers must be a list of names")
    return {**current, "metadata": dict(current["metadata"]), "spec": {"finalizers": finalizers} if finalizers else {}}


def _keep(kind: Kind, given: Object, current: Object) -> None:
    """What an update of the main resource does not touch, whatever the caller sent."""
    metadata, present = given["metadata"], current["metadata"]
    for field in _SERVER_SET:
        metadata.pop(field, None)
        if field in present:
            metadata[field] = present[field]
    if "generateName" in present:
        metadata.setdefault("generateName", present["generateName"])
    stamps = {key: value for key, value in (present.get("annotations") or {}).items() if key in _STAMPS}
    if stamps and isinstance(metadata.get("annotations") or {}, dict):
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **stamps}
    for field in _own(kind):
        given.pop(field, None)
        if field in current:
            given[field] = current[field]
    if kind.kind == "Namespace" and "spec" in current:
        given["spec"] = current["spec"]


def _own(kind: Kind) -> tuple[str, ...]:
    """The fields that have a subresource of their own."""
    return ("status",) if kind.status_subresource else ()


def _stamped(kind: Kind) -> bool:
    return kind.group == registry.GROUP and kind.status_subresource


def _stamp(obj: Object, now: datetime, keys: Sequence[str]) -> None:
    micros = str(int(now.timestamp() * 1_000_000))
    metadata = obj["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **dict.fromkeys(keys, micros)}


def _without(obj: Object, *fields: str) -> Object:
    return {name: value for name, value in obj.items() if name not in fields}
