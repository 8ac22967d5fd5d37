"""Lease: who owns something (a controller, a run) and until when. Taking and renewing one is the runtime's business."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.meta.document import Document, Int32, Timestamp

__all__ = ["Lease", "LeaseSpec"]


class LeaseSpec(Document):
    """Who holds the lease and until when."""

    holder_identity: str | None = None
    """Identity of the holder; empty when nobody holds the lease."""
    lease_duration_seconds: Annotated[Int32, Field(ge=1)] | None = None
    """Seconds after renewTime from which others may take the lease."""
    acquire_time: Timestamp | None = None
    """When the present holder took the lease."""
    renew_time: Timestamp | None = None
    """When the present holder last renewed the lease."""
    lease_transitions: Annotated[Int32, Field(ge=0)] | None = None
    """How often the lease went from one holder to another."""
    strategy: str | None = None
    """How the holder is elected, where several are coordinated."""
    preferred_holder: str | None = None
    """Whom the holder should hand the lease to."""


class Lease(Resource):
    """Who owns something, and until when."""

    spec: LeaseSpec = Field(default_factory=LeaseSpec)
    """Who holds the lease and until when."""

    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Holder", ".spec.holderIdentity", description="Who holds the lease"),
        AGE,
    )
