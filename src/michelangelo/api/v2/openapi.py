"""The OpenAPI v3 document of a group and version, as Kubernetes serves it under /openapi/v3/apis/<group>/<version>.

kubectl reads it for `explain` and to learn which parameters a verb takes (dryRun, fieldValidation); client generators
read it whole. It is computed from the registry and the models; serving and caching it is the server's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import michelangelo
from michelangelo.api.v2 import registry, schema
from michelangelo.api.v2.registry import Kind

__all__ = ["Document", "definition_name", "document", "group_versions", "path_of"]

Document = dict[str, Any]

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
_JSON: Final = "application/json"
_BODIES: Final = (_JSON, "application/yaml")
_LISTED: Final = (_JSON, "application/yaml", "application/json;stream=watch")
_PATCHES: Final = ("application/json-patch+json", "application/merge-patch+json")

_PRETTY: Final = ("pretty", "string", "If 'true', then the output is pretty printed.")
_WRITING: Final = (
    ("dryRun", "string", "All: everything is checked, and nothing is kept. No other value is known."),
    ("fieldManager", "string", "Name of the program that makes the change; accepted, and not kept."),
    (
        "fieldValidation",
        "string",
        "What happens to fields that the kind does not have: Strict refuses the request, Warn (the default) drops them "
        "with a warning, Ignore drops them silently.",
    ),
)
_LISTING: Final = (
    ("allowWatchBookmarks", "boolean", "Whether a watch may send BOOKMARK events, which tell how far it is."),
    ("continue", "string", "Where to go on: metadata.continue of the page before."),
    ("fieldSelector", "string", "Select by fields, such as status.state=Running,metadata.name!=a."),
    ("labelSelector", "string", "Select by labels, such as app=a,tier in (1,2),!legacy."),
    ("limit", "integer", "At most so many objects; metadata.continue of the answer leads to the next."),
    ("resourceVersion", "string", "The version to list at, or the one to watch from."),
    ("resourceVersionMatch", "string", "NotOlderThan or Exact: how resourceVersion is meant in a list."),
    ("sendInitialEvents", "boolean", "Whether a watch starts with the objects that there are, and a bookmark."),
    ("timeoutSeconds", "integer", "How long the list or the watch may take, in seconds."),
    ("watch", "boolean", "Send changes as a stream of events instead of a list."),
)
_DELETING: Final = (
    _WRITING[0],
    ("gracePeriodSeconds", "integer", "Accepted, and without a meaning here."),
    ("orphanDependents", "boolean", "The older form of propagationPolicy=Orphan."),
    (
        "propagationPolicy",
        "string",
        "What becomes of the objects that it owns: Orphan, Background or Foreground.",
    ),
)


def group_versions() -> list[tuple[str, str]]:
    """Every group and version that has kinds, in the registry's order."""
    return list(dict.fromkeys((kind.group, kind.version) for kind in registry.KINDS.values()))


def path_of(group: str, version: str) -> str:
    """`api/v1`, `apis/michelangelo.api/v2`: the key in the index at /openapi/v3, and the beginning of every path."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def document(group: str, version: str) -> Document:
    """The OpenAPI v3 document of a group and version; without paths where there are no such kinds."""
    kinds = [kind for kind in registry.KINDS.values() if (kind.group, kind.version) == (group, version)]
    schemas = _meta_schemas()
    paths: Document = {}
    for kind in kinds:
        schemas |= _kind_schemas(kind)
        paths |= _paths(kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Michelangelo", "version": michelangelo.__version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "name": "authorization",
                    "in": "header",
                    "description": "Bearer token",
                }
            },
        },
        "security": [{"BearerToken": []}],
    }


def definition_name(kind: Kind) -> str:
    """`api.michelangelo.v2.Pipeline`: the group backwards; Kubernetes' own names for its own kinds."""
    if not kind.group:
        return f"io.k8s.api.core.{kind.version}.{kind.kind}"
    if kind.group.endswith(".k8s.io"):
        return f"io.k8s.api.{kind.group.removesuffix('.k8s.io')}.{kind.version}.{kind.kind}"
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def _paths(kind: Kind) -> Document:
    prefix = f"/{path_of(kind.group, kind.version)}"
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    collection, single = f"{prefix}{scope}/{kind.plural}", f"{prefix}{scope}/{kind.plural}/{{name}}"
    namespace = [_parameter("namespace", "string", "The namespace, which is a project.", "path")] if scope else []
    name = _parameter("name", "string", f"Name of the {kind.kind}.", "path")
    paths: Document = {
        collection: {**_collection_verbs(kind), "parameters": [*namespace, _parameter(*_PRETTY)]},
        single: {**_object_verbs(kind, ""), "parameters": [name, *namespace, _parameter(*_PRETTY)]},
    }
    if kind.status_subresource:
        verbs = _object_verbs(kind, "Status")
        del verbs["delete"]
        paths[f"{single}/status"] = {**verbs, "parameters": [name, *namespace, _parameter(*_PRETTY)]}
    if kind.namespaced:
        everywhere = _operation(kind, "list", "ForAllNamespaces", _LISTING, answer=f"{definition_name(kind)}List")
        paths[f"{prefix}/{kind.plural}"] = {"get": everywhere, "parameters": [_parameter(*_PRETTY)]}
    return paths


def _collection_verbs(kind: Kind) -> Document:
    name = definition_name(kind)
    return {
        "get": _operation(kind, "list", "", _LISTING, answer=f"{name}List"),
        "post": _operation(kind, "post", "", _WRITING, answer=name, body=(name, _BODIES)),
        "delete": _operation(
            kind, "deletecollection", "", (*_LISTING, *_DELETING), answer=f"{_META}.Status", body=_delete_options()
        ),
    }


def _object_verbs(kind: Kind, subresource: str) -> Document:
    name = definition_name(kind)
    patch = (f"{_META}.Patch", _PATCHES)
    return {
        "get": _operation(kind, "get", subresource, (), answer=name),
        "put": _operation(kind, "put", subresource, _WRITING, answer=name, body=(name, _BODIES)),
        "patch": _operation(kind, "patch", subresource, _WRITING, answer=name, body=patch),
        "delete": _operation(kind, "delete", subresource, _DELETING, answer=f"{_META}.Status", body=_delete_options()),
    }


def _delete_options() -> tuple[str, tuple[str, ...]]:
    return f"{_META}.DeleteOptions", _BODIES


_OPERATION_NAMES: Final = {"get": "read", "put": "replace", "post": "create", "deletecollection": "deleteCollection"}
_SENTENCES: Final = {
    "get": "read the specified {}",
    "list": "list or watch objects of kind {}",
    "post": "create a {}",
    "put": "replace the specified {}",
    "patch": "partially update the specified {}",
    "delete": "delete a {}",
    "deletecollection": "delete collection of {}",
}


def _operation(
    kind: Kind,
    action: str,
    suffix: str,
    parameters: tuple[tuple[str, str, str], ...],
    *,
    answer: str,
    body: tuple[str, tuple[str, ...]] | None = None,
) -> Document:
    group = "".join(part.capitalize() for part in (kind.group or "core").removesuffix(".k8s.io").split("."))
    scope = "Namespaced" if kind.namespaced and suffix != "ForAllNamespaces" else ""
    tag = group[0].lower() + group[1:]
    types = _LISTED if action == "list" else _BODIES
    verb = _OPERATION_NAMES.get(action, action)
    operation: Document = {
        "tags": [f"{tag}_{kind.version}"],
        "description": _SENTENCES[action].format(kind.kind),
        "operationId": f"{verb}{group}{kind.version.capitalize()}{scope}{kind.kind}{suffix}",
        "parameters": [_parameter(*one) for one in parameters],
        "responses": {
            str(code): {"description": text, "content": _content(answer, types)} for code, text in _successes(action)
        }
        | {"401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _group_version_kind(kind, kind.kind),
    }
    if body is not None:
        name, accepted = body
        operation["requestBody"] = {"content": _content(name, accepted), "required": not action.startswith("delete")}
    return operation


def _successes(action: str) -> Iterator[tuple[int, str]]:
    yield 200, "OK"
    if action == "post":
        yield 201, "Created"
    if action == "delete":
        yield 202, "Accepted"


def _content(name: str, types: tuple[str, ...]) -> Document:
    return {one: {"schema": _reference(name)} for one in types}


def _parameter(name: str, kind: str, description: str, place: str = "query") -> Document:
    required = {"required": True} if place == "path" else {}
    return {
        "name": name,
        "in": place,
        "description": description,
        **required,
        "schema": {"type": kind, "uniqueItems": True},
    }


def _reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _group_version_kind(kind: Kind, name: str) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": name}


def _kind_schemas(kind: Kind) -> Document:
    root = schema.of(kind)
    metadata = {
        "description": root["properties"]["metadata"]["description"],
        "allOf": [_reference(f"{_META}.ObjectMeta")],
    }
    name = definition_name(kind)
    return {
        name: {
            **root,
            "properties": {**root["properties"], "metadata": metadata},
            "x-kubernetes-group-version-kind": [_group_version_kind(kind, kind.kind)],
        },
        f"{name}List": {
            "description": f"A page of objects of kind {kind.kind}.",
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": root["properties"]["apiVersion"],
                "kind": {"description": f"{kind.kind}List.", "type": "string"},
                "metadata": {"description": "Where the page is.", "allOf": [_reference(f"{_META}.ListMeta")]},
                "items": {"description": "The objects.", "type": "array", "items": _reference(name)},
            },
            "x-kubernetes-group-version-kind": [_group_version_kind(kind, f"{kind.kind}List")],
        },
    }


def _meta_schemas() -> Document:
    return {
        f"{_META}.ObjectMeta": schema.of_metadata(),
        f"{_META}.ListMeta": _object(
            "Where a page of a list is.",
            resourceVersion=_text("Version of the list; a watch from it misses nothing."),
            **{"continue": _text("Leads to the next page; empty on the last one.")},
            remainingItemCount=_typed("integer", "How many objects come after this page."),
        ),
        f"{_META}.Patch": {"description": "A JSON patch (RFC 6902) or a merge patch (RFC 7386).", "type": "object"},
        f"{_META}.DeleteOptions": _object(
            "How something is deleted.",
            apiVersion=_text("v1."),
            kind=_text("DeleteOptions."),
            gracePeriodSeconds=_typed("integer", "Accepted, and without a meaning here."),
            preconditions=_object(
                "What must hold, or nothing is deleted.",
                uid=_text("UID that the object must have."),
                resourceVersion=_text("Version that the object must have."),
            ),
            propagationPolicy=_text("What becomes of the objects that it owns: Orphan, Background or Foreground."),
            orphanDependents=_typed("boolean", "The older form of propagationPolicy: Orphan."),
            dryRun={"description": "All: nothing is deleted.", "type": "array", "items": {"type": "string"}},
        ),
        f"{_META}.Status": _object(
            "What became of a request that has no object as its answer.",
            apiVersion=_text("v1."),
            kind=_text("Status."),
            metadata={"description": "Empty.", "type": "object"},
            status=_text("Success or Failure."),
            message=_text("What happened, for people."),
            reason=_text("Why it failed, as one CamelCase word."),
            details={"description": "What it was about, and all causes.", "type": "object", schema.FREE_FORM: True},
            code=_typed("integer", "The HTTP status code."),
        ),
    }


def _object(description: str, **properties: Document) -> Document:
    return {"description": description, "type": "object", "properties": properties}


def _text(description: str) -> Document:
    return _typed("string", description)


def _typed(kind: str, description: str) -> Document:
    return {"description": description, "type": kind}
