"""What a kind's fields mean, as text: the layout is that of `kubectl explain`. It prints nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from michelangelo import errors
from michelangelo.api.v2 import schema
from michelangelo.api.v2.registry import Kind

__all__ = ["explain", "full", "type_text"]

_WIDTH = 80


def explain(kind: Kind, path: str = "", *, recursive: bool = False) -> str:
    """The text about a kind, or about its field at `path`, such as `spec.manifest`.

    Raises NotFoundError, with the fields that there are, where there is no such field.
    """
    root = full(kind)
    try:
        found = schema.at(root, path) if path else root
    except ValueError as error:
        raise errors.BadRequestError(str(error)) from error
    if found is None:
        raise errors.NotFoundError(_missing(kind, root, path))
    lines = [f"GROUP:      {kind.group}"] if kind.group else []
    lines += [f"KIND:       {kind.kind}", f"VERSION:    {kind.version}", ""]
    if path:
        lines += [f"FIELD: {path.rpartition('.')[2]} <{type_text(found)}>", ""]
    if found.get("enum"):
        lines += ["ENUM:", *(f"    {one}" for one in found["enum"]), ""]
    lines += ["DESCRIPTION:", *_wrapped(found.get("description", ""), 4)]
    inner = _inner(found)
    if inner.get("properties"):
        lines += ["", "FIELDS:", *_fields(inner, 2, recursive)]
    return "\n".join(lines).rstrip() + "\n"


def full(kind: Kind) -> schema.Schema:
    """The kind's schema with the fields of its metadata."""
    root = schema.of(kind)
    metadata = {**schema.of_metadata(), "description": root["properties"]["metadata"]["description"]}
    return {**root, "properties": {**root["properties"], "metadata": metadata}}


def type_text(field: schema.Schema) -> str:
    """`string`, `[]Object`, `map[string]string`, `any`."""
    match field.get("type"):
        case "array":
            return f"[]{type_text(field['items'])}"
        case "object" if isinstance(field.get("additionalProperties"), dict):
            return f"map[string]{type_text(field['additionalProperties'])}"
        case "object":
            return "Object"
        case None:
            return "any"
        case other:
            return str(other)


def _fields(parent: schema.Schema, indent: int, recursive: bool) -> Iterator[str]:
    required = parent.get("required", ())
    for name, field in sorted(parent["properties"].items()):
        yield f"{' ' * indent}{name}\t<{type_text(field)}>{' -required-' if name in required else ''}"
        inner = _inner(field)
        if recursive:
            if inner.get("properties"):
                yield from _fields(inner, indent + 2, recursive)
            continue
        if inner.get("enum"):
            yield f"{' ' * indent}enum: {', '.join(inner['enum'])}"
        yield from _wrapped(field.get("description", ""), indent + 2)
        yield ""


def _inner(field: schema.Schema) -> schema.Schema:
    """What a list or a map holds, in the end."""
    while "items" in field or isinstance(field.get("additionalProperties"), dict):
        field = field.get("items") or field["additionalProperties"]
    return field


def _wrapped(text: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, _WIDTH, initial_indent=space, subsequent_indent=space) or [f"{space}<empty>"]


def _missing(kind: Kind, root: schema.Schema, path: str) -> str:
    """Says at which part the path leaves the schema."""
    parent, known, field = root, kind.singular, path
    for part in path.split("."):
        found = schema.at(parent, part)
        if found is None:
            field = part
            break
        parent, known = found, f"{known}.{part}"
    names = ", ".join(sorted(_inner(parent).get("properties", {}))) or "no fields of its own"
    return f'field "{field}" does not exist in {known}; it has {names}'
