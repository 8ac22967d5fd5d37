"""Strategic merge patches, as far as the core kinds of this server need them (Namespace, Event, Lease).

Maps are merged and lists replaced, but for lists that have a merge key or are sets; `$patch` and
`$deleteFromPrimitiveList` say what to remove. `$setElementOrder` and `$retainKeys` only concern order and unions, which
these kinds have not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from michelangelo import errors
from michelangelo.meta import depth

__all__ = ["apply"]

_MERGE_KEYS: Final[Mapping[tuple[str, ...], str]] = {
    ("metadata", "ownerReferences"): "uid",
    ("status", "conditions"): "type",
}
_SETS: Final = frozenset({("metadata", "finalizers")})
_DELETE: Final = "$deleteFromPrimitiveList/"


def apply(current: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The patched document; neither argument is changed. Raises BadRequestError."""
    if depth.deeper_than(patch):
        raise errors.BadRequestError(f"the patch is nested deeper than {depth.MAX_DEPTH} levels")
    return _merge(current, patch, ())


def _merge(current: dict[str, Any], patch: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    directive = patch.get("$patch")
    if directive in ("replace", "delete"):
        return {} if directive == "delete" else {name: value for name, value in patch.items() if name != "$patch"}
    if directive not in (None, "merge"):
        raise errors.BadRequestError(f"unknown patch directive {directive!r} at {'.'.join(path) or 'the top'}")
    merged = dict(current)
    for name, value in patch.items():
        if name.startswith(_DELETE):
            field = name.removeprefix(_DELETE)
            merged[field] = [one for one in merged.get(field) or [] if one not in (value or [])]
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value, (*path, name))
    return merged


def _merged(present: Any, value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return _merge(present if isinstance(present, dict) else {}, value, path)
    if isinstance(value, list) and isinstance(present, list):
        if path in _SETS:
            return [*present, *(one for one in value if one not in present)]
        if path in _MERGE_KEYS:
            return _merge_list(present, value, _MERGE_KEYS[path], path)
    return copy.deepcopy(value)


def _merge_list(present: list[Any], patch: list[Any], key: str, path: tuple[str, ...]) -> list[Any]:
    merged = list(present)
    if any(isinstance(one, dict) and one.get("$patch") == "replace" for one in patch):
        return [one for one in patch if "$patch" not in one]
    for one in patch:
        if not isinstance(one, dict) or key not in one:
            raise errors.BadRequestError(f"an element of {'.'.join(path)} in the patch has no {key!r}, its merge key")
        at = next((i for i, old in enumerate(merged) if isinstance(old, dict) and old.get(key) == one[key]), None)
        if one.get("$patch") == "delete":
            if at is not None:
                del merged[at]
        elif at is None:
            merged.append(copy.deepcopy(one))
        else:
            merged[at] = _merge(merged[at], one, path)
    return merged
