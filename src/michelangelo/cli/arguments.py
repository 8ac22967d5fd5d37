"""Arguments of a registered workflow: texts of the command line against the JSON Schema that its signature gave.

Only the words that `uniflow.parameters.schema` writes are known; what another schema says more is left to the run.
Every wrong parameter is in one ArgumentsError, before anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from michelangelo import errors
from michelangelo.errors import FieldError

__all__ = ["check", "from_pairs"]

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def from_pairs(pairs: Sequence[tuple[str, str]], schema: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values of `key=text` pairs: text where the schema wants text, else JSON, else text after all."""
    known = schema.get("properties") or {}
    values: dict[str, Any] = {}
    for key, text in pairs:
        name = key if key in known else key.replace("-", "_")
        if name in values:
            raise errors.ArgumentsError(f"argument {name} is given twice")
        values[name] = _value(text, known.get(name) or {})
    return values


def check(schema: Mapping[str, Any], values: Mapping[str, Any], *, subject: str) -> None:
    """Raises ArgumentsError that names every wrong argument."""
    if not schema:
        return
    found: list[FieldError] = []
    _check(schema, dict(values), "", found)
    if found:
        raise errors.ArgumentsError(f"the arguments do not fit {subject}:", errors=found)


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    if "string" in _types(schema):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _types(schema: Mapping[str, Any]) -> set[str]:
    types = {schema["type"]} if isinstance(schema.get("type"), str) else set()
    for option in schema.get("anyOf") or ():
        types |= _types(option)
    if any(isinstance(one, str) for one in schema.get("enum") or ()):
        types.add("string")
    return types


def _check(schema: Mapping[str, Any], value: Any, path: str, found: list[FieldError]) -> None:
    options = schema.get("anyOf")
    if options:
        if not any(_fits(option, value, path) for option in options):
            found.append(FieldError(path, f"{value!r} is none of {', '.join(sorted(_types(schema)))}"))
        return
    if "enum" in schema and value not in schema["enum"]:
        found.append(FieldError(path, f"{value!r} is none of {', '.join(map(str, schema['enum']))}"))
        return
    wanted = str(schema.get("type", ""))
    if wanted in _TYPES and not _is_type(value, wanted):
        found.append(FieldError(path, f"{value!r} is no {wanted}", reason="FieldValueTypeInvalid"))
    elif isinstance(value, dict):
        _check_object(schema, value, path, found)
    elif isinstance(value, list):
        prefix = schema.get("prefixItems") or []
        for position, item in enumerate(value):
            inner = prefix[position] if position < len(prefix) else schema.get("items")
            if isinstance(inner, Mapping):
                _check(inner, item, f"{path}[{position}]", found)


def _check_object(schema: Mapping[str, Any], value: dict[str, Any], path: str, found: list[FieldError]) -> None:
    properties = schema.get("properties") or {}
    others = schema.get("additionalProperties", True)
    for name in schema.get("required") or ():
        if name not in value:
            found.append(FieldError(_join(path, name), "is missing", reason="FieldValueRequired"))
    for name, item in value.items():
        if name in properties:
            _check(properties[name], item, _join(path, name), found)
        elif isinstance(others, Mapping):
            _check(others, item, _join(path, name), found)
        elif not others:
            known = ", ".join(properties) or "none"
            found.append(FieldError(_join(path, name), f"there is no such parameter; there are: {known}"))


def _fits(schema: Mapping[str, Any], value: Any, path: str) -> bool:
    found: list[FieldError] = []
    _check(schema, value, path, found)
    return not found


def _is_type(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[wanted])


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
