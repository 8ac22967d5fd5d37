"""Patches of JSON documents: merge patch (RFC 7386) and JSON patch (RFC 6902). The patched document is a new one.

It knows nothing of objects: what may be patched, and whether the result is valid, is for the caller to say.
"""

from __future__ import annotations

import copy
import json
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
    try:
        operations = [jsonpatch.JsonPatch([operation]) for operation in patch]
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise errors.BadRequestError(f"this is no JSON patch: {error}") from error
    result, copied = copy.deepcopy(target), 0
    for index, operation in enumerate(operations):
        try:
            if patch[index]["op"] == "copy":
                copied += _size(result, patch[index]["from"])
                _check_copied(copied)
            result = operation.apply(result, in_place=True)
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
            raise _inapplicable(index, patch[index], error) from error
        except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
            # The library lets these through where a path leads through a scalar.
            raise _inapplicable(index, patch[index], error) from error
    return result


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
