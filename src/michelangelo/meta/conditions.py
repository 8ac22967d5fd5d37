"""Conditions: what holds of an object, one entry per type, as pure functions on `status.conditions` of a plain
document.

Types have positive polarity (`Ready`, `SourceValid`): True is the good news. A function that changes something says
so, so that a controller writes only when there is something to write. It decides nothing about which conditions a
kind has.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from michelangelo.meta import fieldpath, timestamps
from michelangelo.meta.document import Document, Enumeration, FreeForm, Int64, Timestamp

__all__ = ["Condition", "ConditionStatus", "Truth", "find", "is_true", "remove", "set"]

Truth = Literal["True", "False", "Unknown"]


class ConditionStatus(Enumeration):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Document):
    """One observation about the object."""

    type: str
    """What is observed, in CamelCase and such that True is good."""
    status: ConditionStatus
    """Whether it holds: True, False or Unknown."""
    reason: str | None = None
    """Why, as one CamelCase word for programs."""
    message: str | None = None
    """Why, and what to do next, for people."""
    last_transition_time: Timestamp | None = None
    """When the status last changed."""
    observed_generation: Int64 | None = None
    """The metadata.generation that the observation is about."""
    metadata: FreeForm | None = None
    """State of whoever sets the condition, kept between its looks at the object."""

    @model_validator(mode="before")
    @classmethod
    def _read_upstream_time(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        millis = data.get("lastUpdatedTimestamp", data.get("last_updated_timestamp"))
        # Protobuf's JSON writes an int64 as text.
        if not isinstance(millis, int | str) or not str(millis).isdecimal() or len(str(millis)) > 14:
            return data
        kept = {
            key: value for key, value in data.items() if key not in ("lastUpdatedTimestamp", "last_updated_timestamp")
        }
        if int(millis) and "lastTransitionTime" not in kept:
            kept["lastTransitionTime"] = timestamps.format_seconds(timestamps.of_millis(int(millis)))
        return kept


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
