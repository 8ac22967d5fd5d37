"""Project: a team's namespace, with its owners and its repository. Everything else lives inside one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from michelangelo import errors
from michelangelo.api.v2.commit_info import CommitInfo
from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.meta import causes
from michelangelo.meta.document import Bool, Document, Enumeration, Int32, Timestamp
from michelangelo.meta.metadata import Condition

__all__ = [
    "NotificationControl",
    "OwnerInfo",
    "Project",
    "ProjectPhase",
    "ProjectSpec",
    "ProjectState",
    "ProjectStatus",
    "Retention",
    "RetentionConfig",
    "TypeInfo",
    "check_placement",
]


class NotificationControl(Enumeration):
    PROJECT_OWNER_AND_USER_TEAM = "ProjectOwnerAndUserTeam"
    PROJECT_OWNER_ONLY = "ProjectOwnerOnly"
    NOTIFICATION_OFF = "NotificationOff"


class ProjectState(Enumeration):
    PROVISIONING = "Provisioning"
    PROVISION_PENDING = "ProvisionPending"
    READY = "Ready"
    ERROR = "Error"


class ProjectPhase(Enumeration):
    DEVELOPMENT = "Development"
    STAGING = "Staging"
    PRODUCTION = "Production"
    DECOMMISSION = "Decommission"


class OwnerInfo(Document):
    """Who answers for the project."""

    owning_team: str | None = None
    """The team: its UUID or its name."""
    owners: list[str] | None = None
    """Users who own the project."""
    owner_groups: list[str] | None = None
    """Groups of users who own the project."""


class Retention(Document):
    """How long something is kept."""

    retention_in_days: Annotated[Int32, Field(ge=0)] | None = None
    """Days; 0 or absent for ever."""


class RetentionConfig(Document):
    """How long the project's objects are kept."""

    online_deployment_retention: Retention | None = None
    """For deployments that serve online."""
    offline_deployment_retention: Retention | None = None
    """For deployments that score offline."""
    endpoint_retention: Retention | None = None
    """For endpoints."""
    model_retention: Retention | None = None
    """For models."""
    notification_control: NotificationControl | None = None
    """Who is told before something goes."""


class TypeInfo(Document):
    """What kind of machine learning the project does."""

    is_core_ml: Bool | None = Field(None, alias="isCoreMl")
    """Classical machine learning and deep learning."""
    is_generative_ai: Bool | None = Field(None, alias="isGenerativeAi")
    """Large language models and other generative models."""


class ProjectSpec(Document):
    """What the project is."""

    description: str | None = None
    """What the project is for."""
    owner: OwnerInfo | None = None
    """Who answers for the project."""
    tier: Annotated[Int32, Field(ge=1, le=5)] | None = None
    """How critical the project is, from 1 (most) to 5 (inactive)."""
    git_repo: str | None = None
    """Repository of the project's source code."""
    root_dir: str | None = None
    """Folder of the project in its repository."""
    commit: CommitInfo | None = None
    """Commit that this definition was taken from."""
    supporting_links: dict[str, str] | None = None
    """Links to documents, dashboards and the like, by title."""
    retention_config: RetentionConfig | None = None
    """How long the project's objects are kept."""
    type_info: TypeInfo | None = None
    """What kind of machine learning the project does."""


class ProjectStatus(Document):
    """What is so; written by the project controller."""

    state: ProjectState | None = None
    """Whether the project can be used."""
    phase: ProjectPhase | None = None
    """Where in its life the project is."""
    error_message: str | None = None
    """Why the state is Error."""
    last_update_time: Timestamp | None = None
    """When the status last changed."""
    conditions: list[Condition] | None = None
    """What holds of the project, one entry per type."""


class Project(Resource):
    """A team's namespace: pipelines, runs, models and everything else live inside a project."""

    spec: ProjectSpec = Field(default_factory=ProjectSpec)
    """What the project is."""
    status: ProjectStatus | None = None
    """What is so; written by the project controller."""

    label_name = True
    example: ClassVar[Mapping[str, Any]] = {"spec": {"description": "What the project is for"}}
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("State", ".status.state", description="Whether the project can be used"),
        Column("Tier", ".spec.tier", "integer", "How critical the project is, from 1 (most) to 5"),
        Column("Team", ".spec.owner.owningTeam", description="The team that owns the project", priority=1),
        Column("Repository", ".spec.gitRepo", description="Repository of the source code", priority=1),
        AGE,
    )


def check_placement(metadata: dict[str, Any]) -> list[errors.FieldError]:
    """A project is named as its namespace, and takes no namespace of the system's."""
    name, namespace = metadata.get("name") or "", metadata.get("namespace") or ""
    if name and namespace and name != namespace:
        return [causes.invalid("metadata.namespace", namespace, f"must be the project's name, {name!r}")]
    if name == "default" or name.startswith("kube-"):
        detail = "the names default and kube-… are the system's; choose another"
        return [causes.invalid("metadata.name", name, detail)]
    return []
