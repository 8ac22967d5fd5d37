"""Discovery: which groups, versions, kinds and verbs there are, as clients ask for it. Computed from the registry
alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver.http import negotiation, replies

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.apiserver.http.negotiation import Form

__all__ = ["group", "groups", "legacy_versions", "resources"]

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_STATUS_VERBS = ("get", "patch", "update")


async def legacy_versions(request: Request) -> Response:
    """/api: the versions of the core group."""
    form = _form(request)
    if form.shape:
        return replies.document(_aggregated(form, [""]), form)
    address = {"clientCIDR": "0.0.0.0/0", "serverAddress": request.headers.get("host", "")}
    content = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}
    return replies.document(content, form)


async def groups(request: Request) -> Response:
    """/apis: the groups."""
    form = _form(request)
    named = [name for name in _groups() if name]
    if form.shape:
        return replies.document(_aggregated(form, named), form)
    content = {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in named]}
    return replies.document(content, form)


async def group(request: Request) -> Response:
    """/apis/GROUP."""
    name = request.path_params["group"]
    if name not in _groups():
        raise errors.NotFoundError("the server could not find the requested resource")
    return replies.document({"kind": "APIGroup", "apiVersion": "v1", **_group(name)}, negotiation.JSON)


async def resources(request: Request) -> Response:
    """/api/v1 and /apis/GROUP/VERSION: the kinds."""
    name, version = request.path_params.get("group", ""), request.path_params["version"]
    kinds = [kind for kind in registry.KINDS.values() if (kind.group, kind.version) == (name, version)]
    if not kinds:
        raise errors.NotFoundError("the server could not find the requested resource")
    content = {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": kinds[0].api_version,
        "resources": [entry for kind in kinds for entry in _resources(kind)],
    }
    return replies.document(content, negotiation.JSON)


def _form(request: Request) -> Form:
    return negotiation.accepted(request.headers.get("accept", ""), "APIGroupDiscoveryList")


@cache
def _groups() -> dict[str, tuple[str, ...]]:
    """Versions by group, in the registry's order."""
    found: dict[str, tuple[str, ...]] = {}
    for kind in registry.KINDS.values():
        versions = found.get(kind.group, ())
        found[kind.group] = versions if kind.version in versions else (*versions, kind.version)
    return found


def _group(name: str) -> dict[str, Any]:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in _groups()[name]]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _resources(kind: Kind) -> Iterable[dict[str, Any]]:
    main: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(_VERBS),
    }
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    if kind.categories:
        main["categories"] = list(kind.categories)
    yield main
    for name, verbs in _subresources(kind):
        yield {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(verbs),
        }


def _subresources(kind: Kind) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    if kind.kind == "Namespace":
        found.append(("finalize", ("update",)))
    if kind.status_subresource:
        found.append(("status", _STATUS_VERBS))
    return found


def _aggregated(form: Form, names: Iterable[str]) -> dict[str, Any]:
    items = []
    for name in names:
        versions = [
            {
                "version": version,
                "freshness": "Current",
                "resources": [
                    _aggregated_resource(kind)
                    for kind in registry.KINDS.values()
                    if (kind.group, kind.version) == (name, version)
                ],
            }
            for version in _groups()[name]
        ]
        metadata: dict[str, Any] = {"name": name} if name else {}
        metadata["creationTimestamp"] = None
        items.append({"metadata": metadata, "versions": versions})
    return {"kind": form.shape, "apiVersion": form.api_version, "metadata": {}, "items": items}


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    response_kind = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    found: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": response_kind,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(_VERBS),
    }
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    subresources = [
        {"subresource": name, "responseKind": response_kind, "verbs": list(verbs)}
        for name, verbs in _subresources(kind)
    ]
    if subresources:
        found["subresources"] = subresources
    return found
