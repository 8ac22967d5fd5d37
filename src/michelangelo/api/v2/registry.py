"""The registry: the single source of truth about which kinds exist, without loading any of their models.

Importing it costs nothing but a table; `Kind.model` imports the one module that it names. It computes nothing from the
models: schemas, manifests, columns and templates are computed by the other modules of this room.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

from michelangelo import errors

if TYPE_CHECKING:
    from michelangelo.api.v2.resource import Resource

__all__ = ["GROUP", "KINDS", "VERSION", "Kind", "by_plural", "get"]

GROUP: Final = "michelangelo.api"
VERSION: Final = "v2"


@dataclass(frozen=True)
class Kind:
    """What the API needs to know of a kind before it looks at an object of it."""

    kind: str
    plural: str
    module: str
    """Module of `michelangelo.api.v2` that defines the model, a class named as the kind."""
    group: str = GROUP
    version: str = VERSION
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status_subresource: bool = True
    """Whether `status` is written through its own subresource only (and dropped on create)."""

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """`pipelines.michelangelo.api`, as messages and CRD names have it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def model(self) -> type[Resource]:
        module = importlib.import_module(f"michelangelo.api.v2.{self.module}")
        return cast("type[Resource]", getattr(module, self.kind))


_ML: Final = ("michelangelo",)

KINDS: Final[Mapping[str, Kind]] = {
    kind.kind: kind
    for kind in (
        Kind("Project", "projects", "project", short_names=("proj",), categories=_ML),
        Kind("Pipeline", "pipelines", "pipeline", short_names=("pl",), categories=_ML),
        Kind("Revision", "revisions", "revision", short_names=("rev",), categories=_ML),
        Kind("PipelineRun", "pipelineruns", "pipeline_run", short_names=("pr",), categories=_ML),
        # The journal: written whole by one driver, so its status needs no subresource of its own.
        Kind("TaskRun", "taskruns", "task_run", short_names=("tr",), categories=_ML, status_subresource=False),
        Kind("Signal", "signals", "signal", categories=_ML, status_subresource=False),
        Kind("CachedOutput", "cachedoutputs", "cached_output", short_names=("co",), categories=_ML),
        Kind(
            "Namespace",
            "namespaces",
            "namespace",
            group="",
            version="v1",
            namespaced=False,
            short_names=("ns",),
        ),
        Kind("Secret", "secrets", "secret", group="", version="v1", status_subresource=False),
        Kind("Event", "events", "event", group="", version="v1", short_names=("ev",), status_subresource=False),
        Kind("Lease", "leases", "lease", group="coordination.k8s.io", version="v1", status_subresource=False),
    )
}


def get(kind: str) -> Kind:
    """The kind of that name. Raises NotFoundError, naming the kinds there are."""
    try:
        return KINDS[kind]
    except KeyError:
        raise errors.NotFoundError(f"there is no kind {kind!r}; the kinds are {', '.join(sorted(KINDS))}") from None


def by_plural(group: str, version: str, plural: str) -> Kind | None:
    """The kind that a URL names, or None."""
    for kind in KINDS.values():
        if (kind.group, kind.version, kind.plural) == (group, version, plural):
            return kind
    return None
