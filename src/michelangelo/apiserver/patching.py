"""The kinds of patch that a request may carry, and applying one to the current object. It judges no result.

`strategic` is here for the core kinds only, as kubectl sends it for those that it knows by heart; Kubernetes does not
take it for other kinds either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from michelangelo import errors
from michelangelo.apiserver import strategic_merge
from michelangelo.meta import patches

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.client.client import JsonPatch, Object

__all__ = ["Patch", "apply"]


@dataclass(frozen=True, slots=True)
class Patch:
    type: Literal["json", "merge", "strategic"]
    body: Object | JsonPatch


def apply(kind: Kind, patch: Patch, current: Object) -> Object:
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
    # What is stored has the names of the wire; a patch may have been made from a file with the other spelling.
    return _object(patches.merge_patch(current, _wire_names(kind.model, patch.body)))


def _wire_names(model: type[BaseModel] | None, patch: Any) -> Any:
    """The patch with fields by their names on the wire; keys that are the user's own stay as they are."""
    if isinstance(patch, list):
        return [_wire_names(model, one) for one in patch]
    if model is None or not isinstance(patch, dict):
        return patch
    renamed: dict[str, Any] = {}
    for name, value in patch.items():
        field = model.model_fields.get(name)
        wire = (field.alias if field is not None else None) or name
        known = field or next((one for one in model.model_fields.values() if one.alias == name), None)
        renamed[wire] = value if known is None else _wire_value(known.annotation, value)
    return renamed


def _wire_value(annotation: Any, value: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _wire_names(annotation, value)
    if get_origin(annotation) is dict:
        inner = get_args(annotation)[1]
        return {key: _wire_value(inner, one) for key, one in value.items()} if isinstance(value, dict) else value
    for inner in get_args(annotation):
        value = _wire_value(inner, value)
    return value


def _object(patched: Any) -> Object:
    if not isinstance(patched, dict):
        raise errors.BadRequestError("the patch leaves no object")
    return patched
