"""Query parameters of the resource API as options of the verbs. It runs no verb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from starlette.datastructures import QueryParams

from michelangelo import errors
from michelangelo.apiserver.options import (
    DeleteOptions,
    FieldValidation,
    ListOptions,
    WatchOptions,
    WriteOptions,
)
from michelangelo.client.client import Propagation
from michelangelo.meta import causes

__all__ = ["delete_options", "list_options", "timeout_seconds", "truth", "watch_options", "write_options"]

_VALIDATIONS: Final = ("Strict", "Warn", "Ignore")
_PROPAGATIONS: Final = ("Background", "Foreground", "Orphan")
_MAX_TIMEOUT: Final = 24 * 3600


def list_options(query: QueryParams) -> ListOptions:
    return ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        limit=_integer(query, "limit"),
        continue_token=query.get("continue", ""),
        resource_version=query.get("resourceVersion", ""),
        resource_version_match=query.get("resourceVersionMatch", ""),
    )


def watch_options(query: QueryParams) -> WatchOptions:
    initial = truth(query, "sendInitialEvents") if "sendInitialEvents" in query else None
    match = query.get("resourceVersionMatch", "")
    if initial is not None and match != "NotOlderThan":
        message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise _invalid("ListOptions", causes.forbidden("resourceVersionMatch", message))
    if initial is None and match:
        message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise _invalid("ListOptions", causes.forbidden("resourceVersionMatch", message))
    return WatchOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        resource_version=query.get("resourceVersion", ""),
        send_initial_events=initial,
        allow_bookmarks=truth(query, "allowWatchBookmarks"),
    )


def timeout_seconds(query: QueryParams, default: float) -> float:
    return min(_integer(query, "timeoutSeconds") or default, _MAX_TIMEOUT)


def write_options(query: QueryParams, user: str, body: Mapping[str, Any] | None = None) -> WriteOptions:
    """`body` is that of a deletion, which may say `dryRun` too."""
    dry_run = query.getlist("dryRun") or (body or {}).get("dryRun") or []
    if any(one != "All" for one in dry_run):
        raise _invalid("Options", causes.not_supported("dryRun", dry_run, ["All"]))
    validation = query.get("fieldValidation") or "Warn"
    if validation not in _VALIDATIONS:
        raise _invalid("Options", causes.not_supported("fieldValidation", validation, _VALIDATIONS))
    return WriteOptions(user=user, dry_run=bool(dry_run), field_validation=cast("FieldValidation", validation))


def delete_options(query: QueryParams, body: Mapping[str, Any]) -> DeleteOptions:
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy")
    orphan = body.get("orphanDependents", query.get("orphanDependents"))
    if orphan is not None and propagation is None:
        propagation = "Orphan" if orphan in (True, "true") else "Background"
    if propagation is not None and propagation not in _PROPAGATIONS:
        raise _invalid("DeleteOptions", causes.not_supported("propagationPolicy", propagation, _PROPAGATIONS))
    preconditions = body.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise errors.BadRequestError("preconditions must be an object with uid and resourceVersion")
    return DeleteOptions(
        cast("Propagation | None", propagation),
        str(preconditions.get("uid") or ""),
        str(preconditions.get("resourceVersion") or ""),
    )


def truth(query: QueryParams, name: str) -> bool:
    value = query.get(name, "").lower()
    if value in ("", "0", "false"):
        # `?watch` alone means true, as Kubernetes reads it.
        return name in query and value == ""
    if value in ("1", "true"):
        return True
    raise errors.BadRequestError(f"{name}: Invalid value: {value!r}: must be true or false")


def _integer(query: QueryParams, name: str) -> int:
    text = query.get(name) or "0"
    try:
        return int(text[:20])
    except ValueError:
        raise errors.BadRequestError(f"{name}: Invalid value: {text[:80]!r}: must be an integer") from None


def _invalid(kind: str, error: errors.FieldError) -> errors.InvalidError:
    return errors.InvalidError(f"{kind}.meta.k8s.io is invalid: {error}", errors=[error])
