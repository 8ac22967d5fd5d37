"""What a URL of the resource API points at. One parser for every kind; it opens no object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.api.v2.registry import Kind
from michelangelo.apiserver.options import Subresource

__all__ = ["Target", "parse"]

_SUBRESOURCES: Final[dict[str, Subresource]] = {"status": "status", "finalize": "finalize"}


@dataclass(frozen=True, slots=True)
class Target:
    kind: Kind
    namespace: str = ""
    name: str = ""
    """Empty for the collection."""
    subresource: Subresource = ""


def parse(group: str, version: str, path: str) -> Target:
    """`namespaces/a/pipelines/b/status` of a group and version. Raises NotFoundError."""
    parts = path.strip("/").split("/")
    if len(parts) > 5 or "" in parts:
        raise _nowhere()
    # `namespaces/a/status` is a part of the Namespace a; `namespaces/a/events` lies in it.
    if len(parts) >= 3 and parts[0] == "namespaces" and not (len(parts) == 3 and parts[2] in _SUBRESOURCES):
        kind = _kind(group, version, parts[2])
        if not kind.namespaced:
            raise _nowhere()
        return _target(kind, parts[1], parts[3:])
    if len(parts) > 3:
        raise _nowhere()
    kind = _kind(group, version, parts[0])
    if kind.namespaced and len(parts) > 1:
        raise _nowhere()
    return _target(kind, "", parts[1:])


def _target(kind: Kind, namespace: str, rest: list[str]) -> Target:
    name = rest[0] if rest else ""
    if len(rest) < 2:
        return Target(kind, namespace, name)
    subresource = _SUBRESOURCES.get(rest[1])
    known = (subresource == "status" and kind.status_subresource) or (
        subresource == "finalize" and kind.kind == "Namespace"
    )
    if subresource is None or not known:
        raise _nowhere()
    return Target(kind, namespace, name, subresource)


def _kind(group: str, version: str, plural: str) -> Kind:
    kind = registry.by_plural(group, version, plural)
    if kind is None:
        raise _nowhere()
    return kind


def _nowhere() -> errors.NotFoundError:
    return errors.NotFoundError("the server could not find the requested resource")
