"""Names of fields in JSON: camelCase, as everywhere on the wire. It knows no document."""

from __future__ import annotations

from typing import Any

__all__ = ["camel", "camel_keys"]


def camel(name: str) -> str:
    """`peak_bytes` → `peakBytes`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def camel_keys(value: Any) -> Any:
    """All keys of nested mappings and lists."""
    if isinstance(value, dict):
        return {camel(key): camel_keys(inner) for key, inner in value.items()}
    return [camel_keys(inner) for inner in value] if isinstance(value, list | tuple) else value
