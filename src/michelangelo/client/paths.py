"""URL paths of the Kubernetes API, computed from the registry. It knows nothing about transports."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from michelangelo import errors
from michelangelo.api.v2 import registry

__all__ = ["check", "collection", "item"]

_UNSAFE: Final = frozenset(("", ".", ".."))


def collection(kind: registry.Kind, namespace: str = "") -> str:
    """`/apis/<group>/<version>[/namespaces/<namespace>]/<plural>`; an empty namespace means all of them."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    if namespace and kind.namespaced:
        return f"{root}/namespaces/{quote(namespace, safe='')}/{kind.plural}"
    return f"{root}/{kind.plural}"


def item(kind: registry.Kind, name: str, *, namespace: str = "", subresource: str = "") -> str:
    """The path of one object. Raises BadRequestError as `check` does."""
    check(kind, name, namespace)
    path = f"{collection(kind, namespace)}/{quote(name, safe='')}"
    return f"{path}/{subresource}" if subresource else path


def check(kind: registry.Kind, name: str, namespace: str) -> None:
    """Raises BadRequestError without a name, or without the namespace that the kind needs."""
    if kind.namespaced and not namespace:
        raise errors.BadRequestError(f"{kind.kind} {name!r}: an object of this kind needs a namespace")
    # What could change the meaning of a path is refused, not sent.
    if name in _UNSAFE:
        raise errors.BadRequestError(f"{kind.kind}: {name!r} is no name of an object")
