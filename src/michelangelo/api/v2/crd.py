"""CustomResourceDefinition manifests of our kinds, for a real Kubernetes API server: computed, never kept in git.

Only kinds of our group have one: the core kinds are Kubernetes' own. `cross_validate` and the immutability of specs
have no counterpart in a CRD of Kubernetes 1.20; clients check them before they send.
"""

from __future__ import annotations

import copy
from typing import Any

from michelangelo import errors
from michelangelo.api.v2 import registry, schema
from michelangelo.api.v2.registry import Kind
from michelangelo.api.v2.resource import Column
from michelangelo.meta import names

__all__ = ["all_manifests", "manifest"]


def all_manifests() -> list[dict[str, Any]]:
    """One manifest per kind of our group, in the registry's order."""
    return [manifest(kind) for kind in registry.KINDS.values() if kind.group == registry.GROUP]


def manifest(kind: Kind) -> dict[str, Any]:
    """The apiextensions.k8s.io/v1 manifest of a kind. Raises BadRequestError for a kind of Kubernetes' own."""
    if kind.group != registry.GROUP:
        raise errors.BadRequestError(f"{kind.kind} is a kind of Kubernetes itself and has no CustomResourceDefinition")
    version: dict[str, Any] = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root(kind)},
        "additionalPrinterColumns": [_column(column) for column in kind.model.printed_columns],
    }
    if kind.status_subresource:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.resource},
        "spec": {
            "group": kind.group,
            "names": _names(kind),
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _names(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular,
    }
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    return found


def _root(kind: Kind) -> schema.Schema:
    root = copy.deepcopy(schema.of(kind))
    # A CRD may say of metadata only how names look.
    metadata: schema.Schema = {"type": "object"}
    if kind.model.label_name:
        rule = {"type": "string", "maxLength": names.LABEL_LENGTH, "pattern": names.DNS_LABEL}
        metadata["properties"] = {"name": rule}
    root["properties"]["metadata"] = metadata
    return root


def _column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.description:
        found["description"] = column.description
    if column.format:
        found["format"] = column.format
    if column.priority:
        found["priority"] = column.priority
    return found
