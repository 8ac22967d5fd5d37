"""The errors of the verbs in the words of the Kubernetes API (`meta.status`), for kinds of the registry.

It only words errors; it decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from michelangelo import errors
from michelangelo.meta import status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from michelangelo.api.v2.registry import Kind

__all__ = [
    "already_exists",
    "conflict",
    "expired_continue",
    "expired_watch",
    "forbidden",
    "invalid",
    "modified",
    "not_found",
    "terminating",
]


def not_found(kind: Kind, name: str) -> errors.NotFoundError:
    return status.not_found(kind.group, kind.plural, name)


def already_exists(kind: Kind, name: str) -> errors.AlreadyExistsError:
    return status.already_exists(kind.group, kind.plural, name)


def conflict(kind: Kind, name: str, why: str) -> errors.ConflictError:
    return status.conflict(kind.group, kind.plural, name, why)


def modified(kind: Kind, name: str) -> errors.ConflictError:
    return status.modified(kind.group, kind.plural, name)


def invalid(kind: Kind, name: str, found: Sequence[errors.FieldError]) -> errors.InvalidError:
    """Every wrong field at once."""
    return status.invalid(kind.group, kind.kind, name, found)


def forbidden(kind: Kind, name: str, why: str) -> errors.ForbiddenError:
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return errors.ForbiddenError(
        f'{kind.resource} "{name}" is forbidden: {why}',
        details={field: value for field, value in details.items() if value},
    )


def terminating(kind: Kind, name: str, namespace: str) -> errors.ForbiddenError:
    error = forbidden(
        kind, name, f"unable to create new content in namespace {namespace} because it is being terminated"
    )
    message = f"namespace {namespace} is being terminated"
    error.details["causes"] = [{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]
    return error


def expired_watch(after: int) -> errors.ExpiredError:
    return errors.ExpiredError(f"too old resource version: {after} was compacted away; list again and watch from there")


def expired_continue() -> errors.ExpiredError:
    return errors.ExpiredError(
        "The provided continue parameter is too old to display a consistent list result. "
        "You must start a new list without the continue parameter."
    )
