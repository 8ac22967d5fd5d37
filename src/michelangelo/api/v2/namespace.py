"""Namespace: the core kind that a project's objects live in; made and deleted together with its Project."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.meta.document import Document, Enumeration
from michelangelo.meta.metadata import Condition

__all__ = ["Namespace", "NamespacePhase", "NamespaceSpec", "NamespaceStatus"]


class NamespacePhase(Enumeration):
    ACTIVE = "Active"
    TERMINATING = "Terminating"


class NamespaceSpec(Document):
    """What must be done before the namespace may go."""

    finalizers: list[str] | None = None
    """Who has to empty the namespace before it may go."""


class NamespaceStatus(Document):
    """What is so; written by the server."""

    phase: NamespacePhase | None = None
    """Active, or Terminating while its contents are deleted."""
    conditions: list[Condition] | None = None
    """What holds of the namespace, one entry per type."""


class Namespace(Resource):
    """A scope for names; the namespace of a project holds all that belongs to it."""

    spec: NamespaceSpec = Field(default_factory=NamespaceSpec)
    """What must be done before the namespace may go."""
    status: NamespaceStatus | None = None
    """What is so; written by the server."""

    namespaced = False
    label_name = True
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Status", ".status.phase", description="Active, or Terminating while its contents are deleted"),
        AGE,
    )
