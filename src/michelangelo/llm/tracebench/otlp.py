"""Spans from files of OpenTelemetry: OTLP JSON, one document or one a line, traces and the log records that belong to
them. Values become plain Python; what a GenAI span means is not known here.

Source: the OTLP specification 1.x, JSON encoding; 64-bit numbers may be text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["Event", "Span", "is_otlp", "parsed", "spans"]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a span, or a log record that names the span. body: of a log record."""

    name: str
    attributes: Mapping[str, Any]
    body: Any = None


@dataclass(slots=True)
class Span:
    """Nanoseconds since 1970; None: not given."""

    id: str
    name: str
    attributes: Mapping[str, Any]
    start: int | None
    end: int | None
    has_failed: bool
    message: str
    events: list[Event] = field(default_factory=list)


def is_otlp(document: Any) -> bool:
    """Whether a JSON document is an export of traces or logs."""
    return isinstance(document, Mapping) and any(
        name in document for name in ("resourceSpans", "resource_spans", "resourceLogs", "resource_logs")
    )


def spans(documents: list[Any]) -> tuple[list[Span], list[str]]:
    """All spans by their start, and what is wrong with those that cannot be read."""
    found: dict[str, Span] = {}
    problems: list[str] = []
    for item in _items(documents, "Spans"):
        try:
            span = _span(item)
        except (TypeError, ValueError, AttributeError) as e:
            problems.append(f"a span cannot be read: {e}"[:200])
            continue
        found[span.id or f"#{len(found)}"] = span
    for record in _items(documents, "Logs"):
        if not isinstance(record, Mapping):
            continue
        owner = found.get(str(record.get("spanId", record.get("span_id", ""))))
        if owner is not None:
            attributes = _attributes(record.get("attributes"))
            name = record.get("eventName") or record.get("event_name") or attributes.get("event.name") or ""
            owner.events.append(Event(str(name), attributes, _value(record.get("body"))))
    return sorted(found.values(), key=lambda span: span.start or 0), problems


def _items(documents: list[Any], kind: str) -> Iterator[Any]:
    """The spans or log records of all resources and scopes; what has another shape is passed over."""
    inner = "spans" if kind == "Spans" else "logRecords"
    for document in documents:
        if not isinstance(document, Mapping):
            continue
        for resource in _list(document, f"resource{kind}", f"resource_{kind.lower()}"):
            for scope in _list(resource, f"scope{kind}", f"scope_{kind.lower()}", f"instrumentationLibrary{kind}"):
                yield from _list(scope, inner, "log_records")


def _list(holder: Any, *names: str) -> list[Any]:
    if not isinstance(holder, Mapping):
        return []
    found: Any = next((holder[name] for name in names if name in holder), [])
    return found if isinstance(found, list) else []


def _span(item: Any) -> Span:
    if not isinstance(item, Mapping):
        raise TypeError("it is no mapping")
    status = item.get("status") or {}
    code = status.get("code")
    return Span(
        id=str(item.get("spanId", item.get("span_id", ""))),
        name=str(item.get("name", "")),
        attributes=_attributes(item.get("attributes")),
        start=_nanoseconds(item.get("startTimeUnixNano", item.get("start_time_unix_nano"))),
        end=_nanoseconds(item.get("endTimeUnixNano", item.get("end_time_unix_nano"))),
        has_failed=code in (2, "2", "STATUS_CODE_ERROR"),
        message=str(status.get("message", "")),
        events=[
            Event(str(event.get("name", "")), _attributes(event.get("attributes")))
            for event in item.get("events") or ()
            if isinstance(event, Mapping)
        ],
    )


def _attributes(items: Any) -> dict[str, Any]:
    if isinstance(items, Mapping):
        return {str(name): value for name, value in items.items()}
    made = {}
    for item in items or ():
        if isinstance(item, Mapping) and "key" in item:
            made[str(item["key"])] = _value(item.get("value"))
    return made


def _value(value: Any) -> Any:
    """An AnyValue as Python has it."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    kind, inner = next(iter(value.items()))
    match kind:
        case "stringValue" | "string_value" | "boolValue" | "bool_value" | "bytesValue":
            return inner
        case "intValue" | "int_value":
            return int(inner)
        case "doubleValue" | "double_value":
            return float(inner)
        case "arrayValue" | "array_value":
            return [_value(one) for one in (inner or {}).get("values") or ()]
        case "kvlistValue" | "kvlist_value":
            return _attributes((inner or {}).get("values"))
        case _:
            return value


def _nanoseconds(value: Any) -> int | None:
    return None if value in (None, "", 0, "0") else int(value)


def parsed(value: Any) -> Any:
    """A value that is JSON in text becomes what the text says."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value
