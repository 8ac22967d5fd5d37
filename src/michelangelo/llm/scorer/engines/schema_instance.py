"""One JSON value that a JSON schema allows, chosen by a hash: what the stub engine answers when a schema is given.

It knows the part of JSON Schema that structured output uses: types, enum, const, bounds, required and other properties,
local references, anyOf and oneOf. For the rest it says that it cannot, rather than answering what the schema forbids.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["make", "number"]

_NOT_FOLLOWED: Final = (
    "pattern not if then else allOf patternProperties propertyNames contains dependentRequired dependentSchemas "
    "unevaluatedProperties uniqueItems minProperties format"
)
_MAX_DEPTH: Final = 24
_WORDS: Final = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron")


def make(schema: Mapping[str, Any], salt: str) -> Any:
    """The same value for the same schema and salt. Raises ValueError with a sentence, for what it cannot follow."""
    return _value(schema, schema, salt, 0)


def number(salt: str) -> int:
    """From 0 up to 2**48, evenly spread, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")


def _value(schema: Any, root: Mapping[str, Any], salt: str, depth: int) -> Any:
    if schema is True or schema == {}:
        return number(salt) % 100
    if not isinstance(schema, Mapping):
        raise ValueError(f"the schema allows nothing at one place: {schema!r}")
    if depth > _MAX_DEPTH:
        raise ValueError(f"the schema nests deeper than {_MAX_DEPTH} levels")
    if unknown := sorted(set(_NOT_FOLLOWED.split()) & schema.keys()):
        raise ValueError(f"the stub engine cannot follow {', '.join(unknown)} of a schema")
    if "$ref" in schema:
        return _value(_resolve(str(schema["$ref"]), root), root, salt, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _pick(schema["enum"], salt)
    for name in ("anyOf", "oneOf"):
        if name in schema:
            # The last one: where a type refers to itself, the way out is commonly written last (null).
            return _value(schema[name][-1], root, salt, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _typed(_pick(kind, salt) if isinstance(kind, list) else kind, schema, root, salt, depth)


def _typed(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], salt: str, depth: int) -> Any:
    match kind:
        case "object":
            return _object(schema, root, salt, depth)
        case "array":
            return _array(schema, root, salt, depth)
        case "string":
            return _string(schema, salt)
        case "integer":
            return _integer(schema, salt)
        case "number":
            return _real(schema, salt)
        case "boolean":
            return number(salt) % 2 == 0
        case "null":
            return None
        case _:
            raise ValueError(f"the schema names a type that JSON does not have: {kind!r}")


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], salt: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    # Optional ones only near the surface, so that a type that may hold itself comes to an end.
    names = [name for name in properties if name in required or depth < 2]
    names += [name for name in required if name not in properties]
    others = schema.get("additionalProperties", True)
    return {name: _value(properties.get(name, others), root, f"{salt}.{name}", depth + 1) for name in names}


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], salt: str, depth: int) -> list[Any]:
    first = list(schema.get("prefixItems", ()))
    least = max(int(schema.get("minItems", 0)), len(first))
    most = int(schema.get("maxItems", least + 2))
    size = least if depth > 2 or most <= least else least + number(salt) % (min(most, least + 2) - least + 1)
    items = schema.get("items", True)
    if items is False:
        size = len(first)
    return [
        _value(first[place] if place < len(first) else items, root, f"{salt}.{place}", depth + 1)
        for place in range(size)
    ]


def _string(schema: Mapping[str, Any], salt: str) -> str:
    least = int(schema.get("minLength", 0))
    most = int(schema.get("maxLength", max(least, 5)))
    if most < least:
        raise ValueError(f"the schema wants a text of at least {least} and at most {most} characters")
    word: str = _pick(_WORDS, salt)
    return (word * (least // len(word) + 1))[: max(least, min(most, len(word)))]


def _integer(schema: Mapping[str, Any], salt: str) -> int:
    low, high = _bounds(schema)
    least, most = math.ceil(low), math.floor(high)
    least += 1 if "exclusiveMinimum" in schema and least == schema["exclusiveMinimum"] else 0
    most -= 1 if "exclusiveMaximum" in schema and most == schema["exclusiveMaximum"] else 0
    step = schema.get("multipleOf", 1)
    if step != int(step):
        raise ValueError("the stub engine cannot follow a multipleOf that is no whole number for an integer")
    first, last = -(-least // int(step)), most // int(step)
    if last < first:
        raise ValueError(f"the schema allows no whole number from {low} to {high}")
    return (first + number(salt) % (last - first + 1)) * int(step)


def _real(schema: Mapping[str, Any], salt: str) -> float:
    if "multipleOf" in schema:
        return _integer(schema, salt)
    low, high = _bounds(schema)
    if high < low or (high == low and not {"exclusiveMinimum", "exclusiveMaximum"}.isdisjoint(schema)):
        raise ValueError(f"the schema allows no number from {low} to {high}")
    # Inside, never on the bounds: they may be excluded.
    return low + (high - low) * (1 + number(salt) % 7) / 8


def _bounds(schema: Mapping[str, Any]) -> tuple[float, float]:
    low = max((schema[name] for name in ("minimum", "exclusiveMinimum") if name in schema), default=None)
    high = min((schema[name] for name in ("maximum", "exclusiveMaximum") if name in schema), default=None)
    if low is None:
        low = 0 if high is None else high - 100
    return low, low + 100 if high is None else high


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    if not reference.startswith("#"):
        raise ValueError(f"the stub engine follows references within a schema only, not {reference!r}")
    place: Any = root
    for part in [part for part in reference[1:].split("/") if part]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, Mapping) or name not in place:
            raise ValueError(f"the schema refers to {reference!r}, which it does not hold")
        place = place[name]
    return place


def _pick(values: Any, salt: str) -> Any:
    if not values:
        raise ValueError("the schema allows none of no values")
    return values[number(salt) % len(values)]
