"""Arguments of a run against the JSON Schema of its pipeline's parameters: every misfit at once, before anything
starts.

It knows the part of JSON Schema that signatures lead to, and lets pass what it does not know: the driver, which has the
function itself, converts and checks again. It imports no code of the user's.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from michelangelo.errors import FieldError

__all__ = ["check", "check_schema"]

_MAX_ERRORS: Final = 50
_MAX_DEPTH: Final = 32
_SHOWN_CHARACTERS: Final = 80
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_BOUNDS: Final[Mapping[str, tuple[Callable[[float, float], bool], str]]] = {
    "minimum": (operator.ge, "must be at least"),
    "maximum": (operator.le, "must be at most"),
    "exclusiveMinimum": (operator.gt, "must be more than"),
    "exclusiveMaximum": (operator.lt, "must be less than"),
}


def check(schema: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with a call. `schema` describes the keyword arguments as an object, its properties in order."""
    names = list(schema.get("properties") or {})
    found: list[FieldError] = []
    given = dict(kwargs)
    for position, value in enumerate(args):
        if position >= len(names):
            if schema.get("additionalProperties") is False and "prefixItems" not in schema:
                found.append(
                    FieldError("spec.input.args", f"{len(args)} arguments were given, the pipeline takes {len(names)}")
                )
            break
        name = names[position]
        if name in given:
            found.append(FieldError(f"spec.input.args[{position}]", f"{name} is given twice", "FieldValueDuplicate"))
        else:
            given[name] = value
    found += _object("spec.input.kwArgs", given, schema, schema, 0)
    return found[:_MAX_ERRORS]


def check_schema(schema: Any, path: str) -> list[FieldError]:
    """What keeps `schema` from describing arguments."""
    if not isinstance(schema, Mapping):
        return [FieldError(path, "must be a JSON Schema, an object", "FieldValueTypeInvalid")]
    found = []
    if schema.get("type", "object") != "object":
        found.append(FieldError(f"{path}.type", "must be object: the arguments by name"))
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping) or not all(isinstance(one, Mapping | bool) for one in properties.values()):
        found.append(FieldError(f"{path}.properties", "must hold one schema per parameter"))
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
        found.append(FieldError(f"{path}.required", "must be a list of names of parameters"))
    return found


def _value(path: str, value: Any, schema: Any, root: Mapping[str, Any], depth: int) -> Iterator[FieldError]:
    if schema is False:
        yield FieldError(path, "is not allowed here", "FieldValueForbidden")
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return
    if isinstance(value, dict) and "$codec" in value:
        return  # Encoded data: only its codec knows what it is.
    root = schema if "$defs" in schema else root
    if "$ref" in schema:
        yield from _value(path, value, _resolve(schema["$ref"], root), root, depth + 1)
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        allowed = ", ".join(map(_shown, schema["enum"]))
        yield FieldError(path, f"{_shown(value)} is none of {allowed}", "FieldValueNotSupported")
    if "const" in schema and not _same(value, schema["const"]):
        yield FieldError(path, f"must be {_shown(schema['const'])}", "FieldValueNotSupported")
    for one in schema.get("allOf") or ():
        yield from _value(path, value, one, root, depth + 1)
    for alternatives in (schema.get("anyOf"), schema.get("oneOf")):
        if alternatives:
            yield from _any(path, value, alternatives, root, depth)
    wanted = schema.get("type")
    types = [wanted] if isinstance(wanted, str) else list(wanted or ())
    if types and not any(_is(value, name) for name in types):
        yield FieldError(path, f"must be {' or '.join(types)}, not {_shown(value)}", "FieldValueTypeInvalid")
        return
    yield from _bounds(path, value, schema)
    if isinstance(value, list):
        yield from _items(path, value, schema, root, depth)
    elif isinstance(value, dict):
        yield from _object(path, value, schema, root, depth)


def _object(
    path: str, value: Mapping[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], depth: int
) -> Iterator[FieldError]:
    properties = schema.get("properties") or {}
    for name in schema.get("required") or ():
        if name not in value:
            yield FieldError(f"{path}.{name}", "is missing", "FieldValueRequired")
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            yield from _value(f"{path}.{name}", item, properties[name], root, depth + 1)
        elif others is False:
            known = ", ".join(properties) or "none"
            yield FieldError(f"{path}.{name}", f"is not known; there are: {known}", "FieldValueNotSupported")
        else:
            yield from _value(f"{path}.{name}", item, others, root, depth + 1)


def _items(
    path: str, value: list[Any], schema: Mapping[str, Any], root: Mapping[str, Any], depth: int
) -> Iterator[FieldError]:
    first = schema.get("prefixItems") or ()
    for index, item in enumerate(value):
        wanted = first[index] if index < len(first) else schema.get("items", True)
        yield from _value(f"{path}[{index}]", item, wanted, root, depth + 1)


def _any(path: str, value: Any, alternatives: Sequence[Any], root: Mapping[str, Any], depth: int) -> list[FieldError]:
    """Nothing when one of them fits; else what is wrong by the one that fits best."""
    attempts = [list(_value(path, value, one, root, depth + 1)) for one in alternatives]
    if not all(attempts):
        return []
    types = [str(one.get("type")) for one in alternatives if isinstance(one, Mapping) and "type" in one]
    if len(types) == len(alternatives) and not any(_is(value, name) for name in types):
        return [FieldError(path, f"must be {' or '.join(types)}, not {_shown(value)}", "FieldValueTypeInvalid")]
    return min(attempts, key=len)


def _bounds(path: str, value: Any, schema: Mapping[str, Any]) -> Iterator[FieldError]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for key, (fits, words) in _BOUNDS.items():
            bound = schema.get(key)
            if isinstance(bound, int | float) and not fits(value, bound):
                yield FieldError(path, f"{words} {bound}, not {_shown(value)}")
    if isinstance(value, str | list):
        least, most = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
        unit = "characters" if isinstance(value, str) else "items"
        if len(value) < schema.get(least, 0):
            yield FieldError(path, f"must have at least {schema[least]} {unit}, it has {len(value)}")
        if len(value) > schema.get(most, len(value)):
            yield FieldError(path, f"must have at most {schema[most]} {unit}, it has {len(value)}")
    if isinstance(value, str) and isinstance(schema.get("pattern"), str) and not _matches(schema["pattern"], value):
        yield FieldError(path, f"must match {schema['pattern']}")


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True


def _is(value: Any, name: str) -> bool:
    if name == "integer":
        return not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )
    if name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES.get(name, (object,)))


def _same(value: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _resolve(reference: Any, root: Mapping[str, Any]) -> Any:
    """What `#/$defs/Name` stands for; what cannot be found allows everything."""
    found: Any = root
    for part in str(reference).removeprefix("#").strip("/").split("/"):
        if not isinstance(found, Mapping) or part not in found:
            return True
        found = found[part]
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
