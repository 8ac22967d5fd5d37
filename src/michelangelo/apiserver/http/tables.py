"""Objects as `kubectl get` prints them (a Table with the kind's columns) and as bare metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from michelangelo import errors
from michelangelo.api.v2 import columns
from michelangelo.meta import timestamps

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.apiserver.http.negotiation import Form
    from michelangelo.client.client import Object

__all__ = ["partial", "table"]

_INCLUDES: Final = ("Metadata", "None", "Object")


def table(
    kind: Kind,
    objects: Sequence[Object],
    form: Form,
    metadata: dict[str, Any],
    *,
    include: str = "Metadata",
    with_columns: bool = True,
) -> Object:
    """Raises BadRequestError for an `include` (the query's `includeObject`) that is none."""
    if include not in _INCLUDES:
        raise errors.BadRequestError(
            f"includeObject: Invalid value: {include!r}: must be one of {', '.join(_INCLUDES)}"
        )
    made = columns.table(
        kind,
        objects,
        timestamps.system_clock(),
        metadata=metadata,
        include_object=cast("columns.IncludeObject", include),
        with_definitions=with_columns,
    )
    return {**made, "apiVersion": form.api_version}


def partial(obj: Object, form: Form) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": form.api_version, "metadata": obj["metadata"]}
