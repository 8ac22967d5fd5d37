"""Patches of JSON documents: merge patch (RFC 7386) and JSON patch (RFC 6902). The patched document is a new one.

It knows nothing of objects: what may be patched, and whether the result is valid, is for the caller to say.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any, Final

import jsonpatch
import jsonpointer

from michelangelo import errors
from michelangelo.meta import depth

__all__ = ["MAX_BYTES", "MAX_OPERATIONS", "json_patch", "merge_patch"]

MAX_OPERATIONS: Final = 10_000
"""Kubernetes' bound on the operations of one JSON patch."""
MAX_BYTES: Final = 3 * 1024 * 1024
"""How much the `copy` operations of one patch may add: each could double the document."""

_MEMBERS: Final = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("from", "path"),
    "copy": ("from", "path"),
    "test": ("path", "value"),
}
_POINTER: Final = re.compile(r"(/([^~/]|~[01])*)*", re.DOTALL)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386. Raises BadRequestError for a patch that is nested too deeply."""
    if depth.deeper_than(patch):
        raise errors.BadRequestError(f"the patch is nested deeper than {depth.MAX_DEPTH} levels")
    return _merged(target, patch)


def json_patch(target: Any, patch: Any) -> Any:
    """RFC 6902, all of the operations or none of them.

    Raises BadRequestError for what is no JSON patch, RequestTooLargeError for too many operations or too much copied,
    InvalidError when an operation cannot be applied to the document (a path that is not there, a failed `test`).
    """
    if not isinstance(patch, list) or not all(isinstance(operation, dict) for operation in patch):
        raise errors.BadRequestError("a JSON patch is a list of operations such as {op: replace, path: /a/b, value: 1}")
    if len(patch) > MAX_OPERATIONS:
        raise errors.RequestTooLargeError(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}"
        )
    if depth.deeper_than(patch, depth.MAX_DEPTH + 2):
        raise errors.BadRequestError(f"the patch is nested deeper than {depth.MAX_DEPTH} levels")
    for index, operation in enumerate(patch):
        _check_operation(index, operation)
    result, copied = copy.deepcopy(target), 0
    for index, operation in enumerate(patch):
        try:
            if operation["op"] == "copy":
                copied += _size(result, operation["from"])
                _check_copied(copied)
            result = jsonpatch.JsonPatch([operation]).apply(result, in_place=True)
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
            raise _inapplicable(index, operation, error) from error
        except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
            # The library lets these through where a path leads through a scalar.
            raise _inapplicable(index, operation, error) from error
    return result


def _check_operation(index: int, operation: dict[str, Any]) -> None:
    name = operation.get("op")
    needed = _MEMBERS.get(name) if isinstance(name, str) else None
    if needed is None:
        raise _malformed(index, f"op must be one of {', '.join(_MEMBERS)}; it is {name!r}")
    for member in needed:
        if member not in operation:
            raise _malformed(index, f"{name} needs a {member!r}")
        if member != "value" and not _is_pointer(operation[member]):
            raise _malformed(index, f"{member} must be a JSON pointer such as /spec/type; it is {operation[member]!r}")


def _is_pointer(value: Any) -> bool:
    return isinstance(value, str) and _POINTER.fullmatch(value) is not None


def _malformed(index: int, why: str) -> errors.BadRequestError:
    return errors.BadRequestError(f"operation {index} of the JSON patch is none: {why}")


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _size(obj: Any, pointer: str) -> int:
    return len(json.dumps(jsonpointer.JsonPointer(pointer).resolve(obj)))


def _check_copied(copied: int) -> None:
    if copied > MAX_BYTES:
        raise errors.RequestTooLargeError(f"the copy operations of the patch add more than {MAX_BYTES} bytes")


def _inapplicable(index: int, operation: dict[str, Any], error: Exception) -> errors.InvalidError:
    what = f"{operation.get('op')} {operation.get('path')}"
    message = f"operation {index} of the JSON patch ({what}) cannot be applied: {error}"
    return errors.InvalidError(message, errors=[errors.FieldError(str(operation.get("path", "")), message)])
