"""Who is told of which event, and how: a part of Pipeline and PipelineRun. Nothing here sends anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from michelangelo import errors
from michelangelo.meta import causes
from michelangelo.meta.document import Document, Enumeration

__all__ = ["EventType", "Notification", "NotificationType", "ResourceType", "check"]

_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)*")


class NotificationType(Enumeration):
    EMAIL = "Email"
    SLACK = "Slack"


class ResourceType(Enumeration):
    PIPELINE_RUN = "PipelineRun"
    TRIGGER_RUN = "TriggerRun"
    PIPELINE = "Pipeline"


class EventType(Enumeration):
    PIPELINE_RUN_STATE_SUCCEEDED = "PipelineRunSucceeded"
    PIPELINE_RUN_STATE_KILLED = "PipelineRunKilled"
    PIPELINE_RUN_STATE_FAILED = "PipelineRunFailed"
    PIPELINE_RUN_STATE_SKIPPED = "PipelineRunSkipped"
    TRIGGER_RUN_STATE_KILLED = "TriggerRunKilled"
    TRIGGER_RUN_STATE_FAILED = "TriggerRunFailed"
    TRIGGER_RUN_STATE_SUCCEEDED = "TriggerRunSucceeded"
    PIPELINE_STATE_READY = "PipelineReady"
    PIPELINE_STATE_ERROR = "PipelineError"


class Notification(Document):
    """A message that is sent when one of the events happens."""

    notification_type: NotificationType | None = None
    """How the message is sent."""
    event_types: list[EventType] | None = None
    """The events that the message is sent for."""
    resource_type: ResourceType | None = None
    """Kind of the object whose events these are."""
    emails: list[str] | None = None
    """Addresses that an email goes to."""
    slack_destinations: list[str] | None = None
    """Slack channels (#channel) and users (@user) that a message goes to."""


def check(path: str, notifications: Sequence[Notification] | None) -> list[errors.FieldError]:
    """The cross-field rules of a list of notifications that lies at `path`."""
    return [error for index, one in enumerate(notifications or ()) for error in _check_one(f"{path}[{index}]", one)]


def _check_one(path: str, one: Notification) -> Iterable[errors.FieldError]:
    if one.notification_type is NotificationType.EMAIL and not one.emails:
        yield causes.required(f"{path}.emails", "a notification by email needs an address")
    if one.notification_type is NotificationType.SLACK and not one.slack_destinations:
        yield causes.required(f"{path}.slackDestinations", "a notification by Slack needs a channel or a user")
    for index, address in enumerate(one.emails or ()):
        if not _EMAIL.fullmatch(address):
            yield causes.invalid(
                f"{path}.emails[{index}]", address, "must be an email address such as name@example.com"
            )
