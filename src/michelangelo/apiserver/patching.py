"""The kinds of patch that a request may carry, and applying one to the current object. It judges no result.

`strategic` is here for the core kinds only, as kubectl sends it for those that it knows by heart; Kubernetes does not
take it for other kinds either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from michelangelo import errors
from michelangelo.apiserver import strategic_merge
from michelangelo.meta import patches

if TYPE_CHECKING:
    from michelangelo.client.client import JsonPatch, Object

__all__ = ["Patch", "apply"]


@dataclass(frozen=True, slots=True)
class Patch:
    type: Literal["json", "merge", "strategic"]
    body: Object | JsonPatch


def apply(patch: Patch, current: Object) -> Object:
    """The patched object; `current` is left as it is. Raises BadRequestError for what is no patch, InvalidError for one
    that does not fit the object."""
    if patch.type == "json":
        return _object(patches.json_patch(current, patch.body))
    if not isinstance(patch.body, dict):
        raise errors.BadRequestError(
            'a merge patch is an object that holds what changes, such as {"spec": {"kill": true}}'
        )
    if patch.type == "strategic":
        return strategic_merge.apply(current, patch.body)
    return _object(patches.merge_patch(current, patch.body))


def _object(patched: Any) -> Object:
    if not isinstance(patched, dict):
        raise errors.BadRequestError("the patch leaves no object")
    return patched
