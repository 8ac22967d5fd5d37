"""A YAML file to start from: every field of a kind with its description, what must be there filled in, the rest
commented.

The template is valid as it stands: `mactl apply` takes it. What is filled in is the kind's `example`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from michelangelo.api.v2 import explain, schema
from michelangelo.api.v2.registry import Kind

__all__ = ["template"]

_WIDTH: Final = 100
_DEPTH: Final = 3
"""Levels of objects that a template shows; the deeper ones are for `explain`."""
_SAMPLES: Final[Mapping[str, str]] = {"integer": "0", "number": "0.0", "boolean": "false"}


def template(kind: Kind, *, name: str = "", namespace: str = "") -> str:
    """The YAML text. Names are made up where they are not given."""
    name = name or f"my-{kind.singular}"
    if kind.kind == "Project":
        namespace = name
    lines = [
        *_comment(str(schema.of(kind).get("description", ""))),
        f"apiVersion: {kind.api_version}",
        f"kind: {kind.kind}",
        "metadata:",
        f"  name: {name}",
    ]
    if kind.namespaced:
        lines.append(f"  namespace: {namespace or 'my-project'}")
    hidden = ("apiVersion", "kind", "metadata", "status")
    fields = {name: field for name, field in schema.of(kind)["properties"].items() if name not in hidden}
    lines += _fields(fields, {"spec": {}, **kind.model.example} if "spec" in fields else kind.model.example)
    return "\n".join(lines) + "\n"


def _fields(properties: Mapping[str, schema.Schema], given: Mapping[str, Any]) -> Iterator[str]:
    """What is filled in, in the order in which the example has it, and then the rest as comments."""
    for name, value in given.items():
        field = properties[name]
        yield from _comment(_description(field))
        if "properties" in field:
            yield f"{name}:"
            yield from (f"  {line}" for line in _fields(field["properties"], value))
        else:
            yield f"{name}: {json.dumps(value)}"
    for name, field in properties.items():
        if name not in given:
            # The description twice commented, so that taking one mark off a whole block leaves valid YAML.
            yield from (f"# {line}" for line in _sample(name, field, _DEPTH))


def _sample(name: str, field: schema.Schema, depth: int) -> Iterator[str]:
    yield from _comment(_description(field))
    if "properties" in field and depth:
        yield f"{name}:"
        for inner, one in field["properties"].items():
            yield from (f"  {line}" for line in _sample(inner, one, depth - 1))
    else:
        yield f"{name}: {_value(field)}"


def _description(field: schema.Schema) -> str:
    text = str(field.get("description", ""))
    values = field.get("enum") or field.get("items", {}).get("enum")
    return f"{text} One of: {', '.join(values)}." if values else text


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _value(field: schema.Schema) -> str:
    if "default" in field:
        return json.dumps(field["default"])
    if field.get("enum"):
        return str(field["enum"][0])
    if field.get("format") == "date-time":
        return "2026-01-31T12:00:00Z"
    kind = explain.type_text(field)
    return "[]" if kind.startswith("[]") else _SAMPLES.get(kind, '""' if kind == "string" else "{}")
