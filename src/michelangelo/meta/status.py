"""Errors as Kubernetes sends them: between `errors.ApiError` and the Status document, both ways, in Kubernetes' own
words.

The functions that make errors take group, plural or kind as text: this module knows no kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from michelangelo import errors

__all__ = [
    "already_exists",
    "conflict",
    "from_status",
    "invalid",
    "method_not_allowed",
    "modified",
    "not_found",
    "qualified",
    "success",
    "to_status",
]

_MODIFIED: Final = "the object has been modified; please apply your changes to the latest version and try again"

_BY_REASON: Final[Mapping[str, type[errors.ApiError]]] = {
    one.reason: one
    for one in (
        errors.BadRequestError,
        errors.UnauthorizedError,
        errors.ForbiddenError,
        errors.NotFoundError,
        errors.MethodNotAllowedError,
        errors.AlreadyExistsError,
        errors.ConflictError,
        errors.ExpiredError,
        errors.RequestTooLargeError,
        errors.UnsupportedMediaTypeError,
        errors.InvalidError,
        errors.TooManyRequestsError,
        errors.InternalError,
        errors.UnavailableError,
    )
}
# Reasons that Kubernetes has besides ours, and codes of answers that carry no Status (a proxy's, say).
_BY_OTHER_REASON: Final[Mapping[str, type[errors.ApiError]]] = {
    "Gone": errors.ExpiredError,
    "Timeout": errors.UnavailableError,
    "ServerTimeout": errors.UnavailableError,
    "NotAcceptable": errors.UnsupportedMediaTypeError,
}
_BY_CODE: Final[Mapping[int, type[errors.ApiError]]] = {
    # AlreadyExists shares 409 with Conflict, which is the one to assume without a reason.
    one.code: one
    for one in _BY_REASON.values()
    if one is not errors.AlreadyExistsError
}


def to_status(error: errors.ApiError) -> dict[str, Any]:
    """The Status document of a refused request; field errors become `details.causes`."""
    details = dict(error.details)
    if isinstance(error, errors.InvalidError) and error.errors:
        details["causes"] = [{"reason": one.reason, "message": one.message, "field": one.path} for one in error.errors]
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
    }
    if details:
        status["details"] = details
    return {**status, "code": error.code}


def from_status(status: Mapping[str, Any]) -> errors.ApiError:
    """The error that a Status document tells of. A document without reason or with an unknown one goes by its code."""
    reason, code = status.get("reason") or "", status.get("code") or 0
    details = dict(status.get("details") or {})
    message = status.get("message") or f"the server answered {code} {reason}".rstrip()
    found = _BY_REASON.get(reason) or _BY_OTHER_REASON.get(reason) or _BY_CODE.get(code)
    if found is None:
        found = errors.BadRequestError if 400 <= code < 500 else errors.InternalError
    if issubclass(found, errors.InvalidError):
        fields = [
            errors.FieldError(cause.get("field") or "", cause.get("message") or "", cause.get("reason") or "")
            for cause in details.pop("causes", None) or []
        ]
        return found(message, errors=fields, details=details)
    return found(message, details=details)


def success(*, group: str, plural: str, name: str, uid: str) -> dict[str, Any]:
    """The answer to a delete that is done at once."""
    details = {"name": name, **({"group": group} if group else {}), "kind": plural, "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def not_found(group: str, plural: str, name: str) -> errors.NotFoundError:
    message = f'{qualified(group, plural)} "{name}" not found'
    return errors.NotFoundError(message, details=_details(group, plural, name))


def already_exists(group: str, plural: str, name: str) -> errors.AlreadyExistsError:
    message = f'{qualified(group, plural)} "{name}" already exists'
    return errors.AlreadyExistsError(message, details=_details(group, plural, name))


def conflict(group: str, plural: str, name: str, cause: str) -> errors.ConflictError:
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {cause}'
    return errors.ConflictError(message, details=_details(group, plural, name))


def modified(group: str, plural: str, name: str) -> errors.ConflictError:
    """The conflict of an update that was made from an older version of the object."""
    return conflict(group, plural, name, _MODIFIED)


def method_not_allowed(group: str, plural: str, verb: str) -> errors.MethodNotAllowedError:
    message = f'{verb} is not supported on resources of kind "{qualified(group, plural)}"'
    return errors.MethodNotAllowedError(message, details=_details(group, plural, ""))


def invalid(group: str, kind: str, name: str, fields: Sequence[errors.FieldError]) -> errors.InvalidError:
    """`kind` in CamelCase, as Kubernetes has it in this message only."""
    texts = list(dict.fromkeys(map(str, fields)))
    shown = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{qualified(group, kind)} "{name}" is invalid: {shown}'
    return errors.InvalidError(message, errors=fields, details=_details(group, kind, name))


def qualified(group: str, name: str) -> str:
    """`pipelines.michelangelo.api`; just the name for the core group."""
    return f"{name}.{group}" if group else name


def _details(group: str, kind: str, name: str) -> dict[str, Any]:
    given = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in given.items() if value}
