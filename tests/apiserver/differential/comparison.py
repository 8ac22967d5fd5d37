"""What makes two answers the same: everything but what must differ between two servers.

Left out of bodies: identities and times that a server makes up, and bookkeeping of one side only (`OURS_ONLY`,
`THEIRS_ONLY`). Differences in behaviour that stay are in `DIFFERENCES`, each with its reason, and are shown to be
there by test_known_differences.py.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["DIFFERENCES", "normal", "normal_event"]

MADE_UP: Final = {"uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "selfLink"}
THEIRS_ONLY: Final = {"managedFields"}
OURS_ONLY: Final = {"michelangelo/UpdateTimestamp", "michelangelo/SpecUpdateTimestamp"}

DIFFERENCES: Final = {
    "immutable-spec": "a CRD of 1.20 has no transition rules: specs of runs are immutable on our server only",
    "unknown-field": "1.20 prunes unknown fields; ours refuses or warns, as current servers do (fieldValidation)",
    "namespace-project": "a Project makes its Namespace, and must carry its name, on our server only",
    "status-everywhere": "unknown paths are text/plain there; ours answers a Status, so that every client can read it",
    "version-on-create": "1.20 answers 500 for a client's mistake; ours 400",
    "patch-causes": "ours names the path of a JSON patch that cannot be applied; 1.20 only says so in the text",
    "patch-form": "a merge patch that is no object is 422 with a Go parser's text there, 400 here",
    "option-details": "a bad dryRun value: 1.20 names the kind of the options in details; ours the parameter",
    "anonymous": "Kubernetes lets anonymous requests in and forbids them all (403); ours asks for a token (401)",
}
"""What differs on purpose, and why. test_known_differences.py shows each of them."""


def normal(value: Any) -> Any:
    """`value` without what must differ."""
    if isinstance(value, list):
        return [normal(item) for item in value]
    if not isinstance(value, dict):
        return value
    cleaned = {k: normal(v) for k, v in value.items() if k not in MADE_UP | THEIRS_ONLY | OURS_ONLY}
    for key, empty in (("annotations", {}), ("labels", {}), ("continue", "")):
        if cleaned.get(key) == empty:
            del cleaned[key]
    if cleaned.get("kind") == "Status":
        return status(cleaned)
    return cleaned


def status(document: dict[str, Any]) -> dict[str, Any]:
    """Of a Status: what clients act on. The causes by field and reason; the text only where it is Kubernetes' own."""
    details = document.get("details") or {}
    kept = {key: document.get(key) for key in ("status", "reason", "code")}
    kept["details"] = {key: details.get(key, "") for key in ("name", "group", "kind")}
    kept["fields"] = sorted({cause.get("field", "") for cause in details.get("causes") or ()})
    if document.get("reason") in ("NotFound", "AlreadyExists"):
        kept["message"] = document.get("message")
    return kept


def normal_event(event: dict[str, Any]) -> dict[str, Any]:
    return {"type": event["type"], "object": normal(event["object"])}
