"""How deeply a document may be nested: what reads a document later may recurse, so the bound is far below Python's."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["MAX_DEPTH", "deeper_than"]

MAX_DEPTH: Final = 100
"""Objects and arrays inside each other, the document itself counted."""


def deeper_than(obj: Any, limit: int = MAX_DEPTH) -> bool:
    """Whether a JSON document is nested more deeply than `limit`; it does not recurse."""
    level: list[Any] = [obj] if isinstance(obj, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            return True
        below: list[Any] = []
        for node in level:
            for child in node.values() if type(node) is dict else node:
                if type(child) is dict or type(child) is list:
                    below.append(child)
        level = below
    return False
