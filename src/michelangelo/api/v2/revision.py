"""Revision: what a Pipeline was at one time. Made by its controller at each change of the spec, and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from michelangelo.api.v2.commit_info import CommitInfo
from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.api.v2.user_info import UserInfo
from michelangelo.meta.document import Document, Enumeration, FreeForm
from michelangelo.meta.metadata import Condition, ResourceIdentifier

__all__ = ["Revision", "RevisionSpec", "RevisionState", "RevisionStatus", "TypeMeta"]


class RevisionState(Enumeration):
    CREATED = "Created"
    BUILDING = "Building"
    READY = "Ready"
    ERROR = "Error"


class TypeMeta(Document):
    """Which kind an object has."""

    api_version: str | None = None
    """Group and version of the kind."""
    kind: str | None = None
    """Name of the kind."""


class RevisionSpec(Document):
    """A snapshot of another object's spec, and where it came from."""

    base_type: TypeMeta | None = None
    """Kind of the object that this is a revision of."""
    base_resource: ResourceIdentifier | None = None
    """The object that this is a revision of."""
    content: FreeForm | None = None
    """The object's spec as it was."""
    owner: UserInfo | None = None
    """Who made the change."""
    parent: ResourceIdentifier | None = None
    """The revision before this one."""
    commit: CommitInfo | None = None
    """Commit that the spec was taken from."""
    revision_id: str | None = None
    """Identity of the revision among those of its object."""
    review_tool_url: str | None = None
    """Where the change was reviewed."""
    git_ref: str | None = None
    """Hash of the commit; commit.gitRef is the newer place."""
    git_branch: str | None = None
    """Branch of the commit; commit.branch is the newer place."""
    source_digest: str | None = None
    """Digest of the source files, such as sha256:… ."""


class RevisionStatus(Document):
    """What is so; written by the controller of the object that this is a revision of."""

    state: RevisionState | None = None
    """Whether the revision can be run."""
    error_message: str | None = None
    """Why the state is Error, and what to do."""
    conditions: list[Condition] | None = None
    """What holds of the revision, one entry per type."""


class Revision(Resource):
    """What a pipeline was at one time; never changed."""

    spec: RevisionSpec
    """A snapshot of another object's spec, and where it came from."""
    status: RevisionStatus | None = None
    """What is so; written by the controller of the object that this is a revision of."""

    frozen = ("spec",)
    example: ClassVar[Mapping[str, Any]] = {"spec": {"baseResource": {"name": "my-pipeline"}, "content": {}}}
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Kind", ".spec.baseType.kind", description="Kind of the object that this is a revision of"),
        Column("Of", ".spec.baseResource.name", description="The object that this is a revision of"),
        Column("State", ".status.state", description="Whether the revision can be run"),
        Column("Branch", ".spec.commit.branch", description="Branch that the spec was taken from"),
        Column("Commit", ".spec.commit.gitRef", description="Commit that the spec was taken from", priority=1),
        Column("Owner", ".spec.owner.name", description="Who made the change", priority=1),
        AGE,
    )
