"""The base of every kind's model, and the one validation that all of them share.

A kind is a class with `spec` and `status` documents and a few class-level facts: the rule for its names, which fields
may change, its printed columns, its cross-field rules. `Resource.check` turns a JSON document into its canonical
form, or into all of its field errors at once. What is computed from the models (schemas, manifests, templates) is in
the modules beside this.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

import pydantic
from pydantic_core import ErrorDetails

from michelangelo import errors
from michelangelo.meta import causes, depth, fieldpath, metadata, names
from michelangelo.meta.document import Document
from michelangelo.meta.metadata import ObjectMeta

__all__ = ["AGE", "Column", "Resource", "Validated", "wire_path"]

_MAX_ERRORS: Final = 100
"""A hostile document may have a million wrong fields; nobody reads more than these."""

_MAX_WRONG: Final = 10_000
"""Above so many, pydantic's list alone would take more memory than the document."""

_JSON_TYPES: Final[Mapping[str, str]] = {
    "string_type": "string",
    "int_type": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A printed column. Those of `priority` above 0 are shown by `-o wide` only."""

    name: str
    json_path: str
    """`.status.state`, as in a CRD: names of fields after dots."""
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    description: str = ""
    priority: int = 0
    format: str = ""


AGE: Final = Column("Age", ".metadata.creationTimestamp", "date", "Time since the object was created")


@dataclass(frozen=True, slots=True)
class Validated:
    """What validation made of a document."""

    object: dict[str, Any]
    """The canonical form, defaults applied, unknown fields left out; empty when there are errors."""
    errors: tuple[errors.FieldError, ...] = ()
    unknown: tuple[str, ...] = ()
    """Paths of the fields that the kind does not have, as the sender wrote them. Whether that is an error is the
    caller's decision (`fieldValidation`)."""


class Resource(Document):
    """An object: what it is, its metadata; `spec` and `status` are added by each kind."""

    api_version: str
    """Group and version of the kind, such as michelangelo.api/v2."""
    kind: str
    """Name of the kind, in CamelCase."""
    metadata: ObjectMeta
    """Name, identity, labels and life cycle of the object."""

    printed_columns: ClassVar[tuple[Column, ...]] = ()
    namespaced: ClassVar[bool] = True
    label_name: ClassVar[bool] = False
    """Whether names are DNS labels (at most 63 characters, no dots): where the name also is a label's value or a
    namespace."""
    frozen: ClassVar[tuple[str, ...]] = ()
    """Fields that never change after creation: `spec`, `spec.manifest`."""
    control: ClassVar[tuple[str, ...]] = ()
    """Fields inside frozen ones that may change, because they ask for something to be done: `spec.kill`."""
    example: ClassVar[Mapping[str, Any]] = {}
    """What a template has filled in of the object's fields, so that it is valid as it stands."""
    one_way: ClassVar[tuple[str, ...]] = ()
    """Control fields that only ever go from false to true."""

    def cross_validate(self) -> list[errors.FieldError]:
        """The kind's rules that concern more than one field."""
        return []

    @classmethod
    def check(cls, obj: Mapping[str, Any]) -> Validated:
        """Validate a JSON document; the given one is left as it is. Never raises for bad input."""
        if depth.deeper_than(obj):
            return Validated({}, (errors.FieldError("", f"must not be nested deeper than {depth.MAX_DEPTH} levels"),))
        return _validate(cls, obj)

    @classmethod
    def check_update(cls, old: dict[str, Any], new: dict[str, Any]) -> list[errors.FieldError]:
        """What an update from one canonical document to another may not change."""
        found = metadata.validate_update(old.get("metadata", {}), new.get("metadata", {}))
        for path in cls.frozen:
            found += _changes(old, new, fieldpath.parse(path), {fieldpath.parse(one) for one in cls.control})
        for path in cls.one_way:
            parts = fieldpath.parse(path)
            if fieldpath.find(old, parts) and not fieldpath.find(new, parts):
                found.append(causes.forbidden(path, "may only change from false to true"))
        return found


def wire_path(model: type[pydantic.BaseModel], location: tuple[str | int, ...]) -> str:
    """The path of a pydantic error location, its fields by their names on the wire however the sender spelled them."""
    parts: list[str | int] = []
    current: type[pydantic.BaseModel] | None = model
    for part in location:
        field = None
        if current is not None and isinstance(part, str):
            for name, info in current.model_fields.items():
                if part in (name, info.alias):
                    field = info
                    break
        if field is not None:
            parts.append(field.alias or str(part))
            current = _model_in(field.annotation)
        else:
            # An index or a map's key: what lies there has the same model. Below free-form data there is none.
            parts.append(part)
    return fieldpath.text(parts)


def _validate(model: type[Resource], obj: Mapping[str, Any]) -> Validated:
    unknown: list[str] = []
    found: list[errors.FieldError] = []
    try:
        parsed = model.model_validate(obj)
    except pydantic.ValidationError as first:
        pruned = copy.deepcopy(dict(obj))
        if first.error_count() > _MAX_WRONG:
            return Validated({}, (errors.FieldError("", f"has {first.error_count()} wrong fields, too many to list"),))
        details = first.errors(include_url=False)
        for detail in details:
            if detail["type"] == "extra_forbidden":
                unknown.append(fieldpath.text(detail["loc"]))
                _remove(pruned, detail["loc"])
            elif detail["input"] is None and detail["type"] != "missing":
                _remove(pruned, detail["loc"])
        # Once more without what does not count: unknown fields, and nulls, which are the same as absent.
        try:
            parsed = model.model_validate(pruned)
        except pydantic.ValidationError as second:
            found = [_field_error(model, detail) for detail in second.errors(include_url=False)[:_MAX_ERRORS]]
            found = _metadata_errors(model, pruned, found) + found
            return Validated({}, tuple(found), tuple(unknown))
    canonical = parsed.model_dump(mode="json", exclude_none=True)
    meta = canonical["metadata"] = {
        key: value for key, value in canonical["metadata"].items() if value not in ("", [], {})
    }
    found += metadata.validate(meta, namespaced=model.namespaced, check_name=_name_rule(model))
    found += parsed.cross_validate()
    return Validated({} if found else canonical, tuple(found[:_MAX_ERRORS]), tuple(unknown))


def _metadata_errors(
    model: type[Resource], obj: dict[str, Any], known: list[errors.FieldError]
) -> list[errors.FieldError]:
    """The metadata's own errors too, although the document as a whole did not parse: everything wrong at once."""
    if any(error.path.startswith("metadata") for error in known) or not isinstance(obj.get("metadata"), dict):
        return []
    meta = ObjectMeta.model_validate(obj["metadata"]).model_dump(mode="json", exclude_none=True)
    return metadata.validate(meta, namespaced=model.namespaced, check_name=_name_rule(model))


def _name_rule(model: type[Resource]) -> Callable[[str], list[str]]:
    return names.check_dns_label if model.label_name else names.check_dns_subdomain


def _remove(obj: Any, location: tuple[str | int, ...]) -> None:
    parent = fieldpath.find(obj, location[:-1])
    if isinstance(parent, dict):
        parent.pop(location[-1], None)


def _field_error(model: type[Resource], detail: ErrorDetails) -> errors.FieldError:
    path, value, context = wire_path(model, detail["loc"]), detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return causes.required(path)
        case "enum":
            return causes.not_supported(path, value, context["supported"])
        case "format":
            return causes.invalid(path, value, str(context["reason"]))
        case "greater_than_equal":
            return causes.invalid(path, value, f"{path} in body should be greater than or equal to {context['ge']}")
        case "less_than_equal":
            return causes.invalid(path, value, f"{path} in body should be less than or equal to {context['le']}")
        case "string_pattern_mismatch":
            return causes.invalid(path, value, f"{path} in body should match '{context['pattern']}'")
        case "string_too_short" if context["min_length"] == 1 and value == "":
            return causes.required(path)
        case "string_too_long":
            return causes.too_long(path, context["max_length"])
        case "too_short":
            return causes.invalid(path, value, f"{path} in body should have at least {context['min_length']} items")
        case kind if kind in _JSON_TYPES:
            return causes.type_invalid(path, value, _JSON_TYPES[kind])
        case _:
            return causes.invalid(path, value, detail["msg"])


def _changes(old: Any, new: Any, path: fieldpath.Path, allowed: set[fieldpath.Path]) -> list[errors.FieldError]:
    """The fields at `path`, or one level below it, that differ and are not allowed to."""
    before, after = fieldpath.find(old, path), fieldpath.find(new, path)
    if before == after or path in allowed:
        return []
    if not (isinstance(before, dict) and isinstance(after, dict)) or len(path) > 1:
        return [causes.invalid(fieldpath.text(path), after, "field is immutable")]
    found: list[errors.FieldError] = []
    for key in [*before, *(key for key in after if key not in before)]:
        found += _changes(old, new, (*path, key), allowed)
    return found


def _model_in(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The one model that an annotation such as `dict[str, Trigger] | None` is about."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((model for model in map(_model_in, get_args(annotation)) if model is not None), None)
