"""Conditions: what holds of an object, one entry per type, as pure functions on `status.conditions` of a plain
document.

Types have positive polarity (`Ready`, `SourceValid`): True is the good news. A function that changes something says
so, so that a controller writes only when there is something to write. It decides nothing about which conditions a
kind has.
"""

from __future__ import annotations

from typing import Any, Literal

from michelangelo.meta import fieldpath, timestamps

__all__ = ["Truth", "find", "is_true", "remove", "set"]

Truth = Literal["True", "False", "Unknown"]


def find(obj: dict[str, Any], type: str) -> dict[str, Any] | None:
    """The object's condition of that type, or None."""
    conditions = fieldpath.find(obj, ("status", "conditions")) or []
    return next((condition for condition in conditions if condition.get("type") == type), None)


def is_true(obj: dict[str, Any], type: str) -> bool:
    condition = find(obj, type)
    return condition is not None and condition.get("status") == "True"


def set(
    obj: dict[str, Any],
    type: str,
    status: Truth,
    *,
    reason: str,
    message: str = "",
    clock: timestamps.Clock = timestamps.system_clock,
) -> bool:
    """Set the condition in place, for the object's present generation; True when anything changed.

    `lastTransitionTime` moves only when the status does.
    """
    found = find(obj, type)
    wanted: dict[str, Any] = {"type": type, "status": status, "reason": reason, "message": message}
    generation = fieldpath.find(obj, ("metadata", "generation"))
    if generation is not None:
        wanted["observedGeneration"] = generation
    if found is None:
        status_document = obj.setdefault("status", {})
        conditions = status_document.setdefault("conditions", [])
        conditions.append({**wanted, "lastTransitionTime": timestamps.now(clock)})
        return True
    if all(found.get(key, "") == value for key, value in wanted.items()):
        return False
    if found.get("status") != status:
        wanted["lastTransitionTime"] = timestamps.now(clock)
    found.update(wanted)
    return True


def remove(obj: dict[str, Any], type: str) -> bool:
    """Take the condition away in place; True when there was one."""
    found = find(obj, type)
    if found is None:
        return False
    obj["status"]["conditions"].remove(found)
    return True
