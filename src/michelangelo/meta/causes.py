"""Field errors in the words of Kubernetes, one function per cause, so that every room says the same thing the same way.

It validates nothing itself. Each function returns an `errors.FieldError` whose `message` is what Kubernetes puts
after the field's path: `Required value`, `Invalid value: 7: must be at most 5`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from michelangelo import errors

__all__ = ["duplicate", "forbidden", "invalid", "not_supported", "required", "too_long", "type_invalid", "type_name"]

_SHOWN_CHARACTERS = 256


def required(path: str, detail: str = "") -> errors.FieldError:
    return errors.FieldError(path, _with_detail("Required value", detail), "FieldValueRequired")


def invalid(path: str, value: Any, detail: str) -> errors.FieldError:
    return errors.FieldError(path, _with_detail(f"Invalid value: {_shown(value)}", detail), "FieldValueInvalid")


def type_invalid(path: str, value: Any, expected: str) -> errors.FieldError:
    """`expected` is a JSON Schema type: string, integer, boolean, number, array, object."""
    found = json.dumps(type_name(value))
    detail = f"{path} in body must be of type {expected}: {found}"
    return errors.FieldError(path, f"Invalid value: {found}: {detail}", "FieldValueTypeInvalid")


def not_supported(path: str, value: Any, supported: Iterable[str]) -> errors.FieldError:
    values = ", ".join(json.dumps(one) for one in supported)
    return errors.FieldError(
        path, f"Unsupported value: {_shown(value)}: supported values: {values}", "FieldValueNotSupported"
    )


def forbidden(path: str, detail: str) -> errors.FieldError:
    return errors.FieldError(path, _with_detail("Forbidden", detail), "FieldValueForbidden")


def duplicate(path: str, value: Any) -> errors.FieldError:
    return errors.FieldError(path, f"Duplicate value: {_shown(value)}", "FieldValueDuplicate")


def too_long(path: str, limit_bytes: int) -> errors.FieldError:
    return errors.FieldError(path, f"Too long: may not be more than {limit_bytes} bytes", "FieldValueTooLong")


def type_name(value: Any) -> str:
    """The JSON Schema name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    for python_type, name in ((int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object")):
        if isinstance(value, python_type):
            return name
    return type(value).__name__


def _with_detail(head: str, detail: str) -> str:
    return f"{head}: {detail}" if detail else head


def _shown(value: Any) -> str:
    # A megabyte of somebody's document helps nobody in an error message.
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
