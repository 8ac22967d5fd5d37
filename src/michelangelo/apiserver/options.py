"""What a caller may say about a verb beyond its object: the query parameters of the Kubernetes API as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from michelangelo.client.client import Object, Propagation

__all__ = ["DeleteOptions", "FieldValidation", "ListOptions", "Subresource", "WatchOptions", "WriteOptions"]

FieldValidation = Literal["Strict", "Warn", "Ignore"]
Subresource = Literal["", "status", "finalize"]


@dataclass(frozen=True, slots=True)
class ListOptions:
    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    resource_version_match: str = ""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    """Empty or "0": the present objects come first, as ADDED."""
    send_initial_events: bool | None = None
    """True: the present objects come first, whatever `resource_version` says, and a bookmark ends them; False: they do
    not come."""
    allow_bookmarks: bool = False


@dataclass(frozen=True, slots=True)
class WriteOptions:
    user: str = "in-process"
    """Who writes, for the audit log."""
    dry_run: bool = False
    field_validation: FieldValidation = "Strict"
    """What happens to fields that the kind does not have: refused, dropped with a warning, dropped."""
    guard: Callable[[Object], None] | None = None
    """Called with the object as it is and as it would be written; raises ForbiddenError where the caller may not."""
    warnings: list[str] = field(default_factory=list)
    """Filled by the verb with what the caller should be told."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    propagation: Propagation | None = None
    """None: background, unless the object already carries the finalizer of another policy."""
    uid: str = ""
    resource_version: str = ""
