"""Event: the core kind that tells people what happened to an object, as `kubectl describe` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from michelangelo import errors
from michelangelo.api.v2.resource import Column, Resource
from michelangelo.meta import causes
from michelangelo.meta.document import Document, Int32, Timestamp

__all__ = ["Event", "EventSeries", "EventSource", "ObjectReference"]


class ObjectReference(Document):
    """An object, or a part of one."""

    api_version: str | None = None
    """Group and version of the object's kind."""
    kind: str | None = None
    """Kind of the object."""
    namespace: str | None = None
    """Namespace of the object."""
    name: str | None = None
    """Name of the object."""
    uid: str | None = None
    """UID of the object."""
    resource_version: str | None = None
    """Version of the object that the event is about."""
    field_path: str | None = None
    """The part of the object that the event is about."""


class EventSource(Document):
    """Who reports."""

    component: str | None = None
    """The component that reports."""
    host: str | None = None
    """The machine that it runs on."""


class EventSeries(Document):
    """How often the same happened."""

    count: Int32 | None = None
    """Number of times."""
    last_observed_time: Timestamp | None = None
    """When it last happened."""


class Event(Resource):
    """Something that happened to an object, for people to read; kept for a while only."""

    involved_object: ObjectReference
    """The object that it happened to."""
    reason: str | None = None
    """What happened, as one CamelCase word."""
    message: str | None = None
    """What happened, for people."""
    type: str | None = None
    """Normal or Warning."""
    count: Int32 | None = None
    """How often it happened."""
    first_timestamp: Timestamp | None = None
    """When it first happened."""
    last_timestamp: Timestamp | None = None
    """When it last happened."""
    event_time: Timestamp | None = None
    """When it first happened, to the microsecond."""
    series: EventSeries | None = None
    """How often the same happened."""
    action: str | None = None
    """What was done about it."""
    related: ObjectReference | None = None
    """Another object that has to do with it."""
    source: EventSource | None = None
    """Who reports."""
    reporting_component: str | None = None
    """Name of the controller that reports."""
    reporting_instance: str | None = None
    """Identity of the controller's process."""

    example: ClassVar[Mapping[str, Any]] = {
        "involvedObject": {"kind": "Pipeline", "name": "my-pipeline"},
        "reason": "Ready",
    }
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Last Seen", ".lastTimestamp", "date", "Time since it last happened"),
        Column("Type", ".type", description="Normal or Warning"),
        Column("Reason", ".reason", description="What happened, as one word"),
        Column("Object", ".involvedObject.name", description="The object that it happened to"),
        Column("Source", ".source.component", description="Who reports", priority=1),
        Column("Message", ".message", description="What happened"),
        Column("First Seen", ".firstTimestamp", "date", "Time since it first happened", priority=1),
        Column("Count", ".count", "integer", "How often it happened", priority=1),
    )

    def cross_validate(self) -> list[errors.FieldError]:
        involved, namespace = self.involved_object.namespace, self.metadata.namespace
        if involved and namespace and involved != namespace:
            return [causes.invalid("involvedObject.namespace", involved, "does not match event.namespace")]
        return []
