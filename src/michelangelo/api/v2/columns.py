"""Printed columns: the Table that Kubernetes' API server sends, and the cells of a single object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from michelangelo.api.v2.registry import Kind
from michelangelo.api.v2.resource import AGE, Column
from michelangelo.meta import fieldpath, timestamps

__all__ = ["Cell", "IncludeObject", "cells", "columns", "definitions", "table", "text"]

Cell = str | int | float | bool | None
IncludeObject = Literal["None", "Metadata", "Object"]

_NAME: Final = Column(
    "Name",
    ".metadata.name",
    "string",
    "Unique within a namespace, and for ever the same",
    format="name",
)


def columns(kind: Kind) -> tuple[Column, ...]:
    """The name, and the kind's own columns; the age where the kind says nothing else."""
    return (_NAME, *(kind.model.printed_columns or (AGE,)))


def definitions(kind: Kind) -> list[dict[str, Any]]:
    """`columnDefinitions` of a Table."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in columns(kind)
    ]


def cells(kind: Kind, obj: Mapping[str, Any], now: datetime) -> list[Cell]:
    """The values of an object's columns; None where the object has no such value. Dates are ages as of `now`."""
    return [_cell(column, obj, now) for column in columns(kind)]


def text(cell: Cell) -> str:
    """A cell as people see it."""
    if cell is None:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def table(
    kind: Kind,
    objects: Iterable[Mapping[str, Any]],
    now: datetime,
    *,
    metadata: Mapping[str, Any],
    include_object: IncludeObject = "Metadata",
    with_definitions: bool = True,
) -> dict[str, Any]:
    """A meta.k8s.io/v1 Table. `metadata` is the list's. A watch sends the definitions with its first event only."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(metadata),
        "columnDefinitions": definitions(kind) if with_definitions else [],
        "rows": [_row(kind, obj, now, include_object) for obj in objects],
    }


def _row(kind: Kind, obj: Mapping[str, Any], now: datetime, include_object: IncludeObject) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": cells(kind, obj, now)}
    if include_object == "Metadata":
        meta = obj.get("metadata", {})
        row["object"] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    elif include_object == "Object":
        row["object"] = obj
    return row


def _cell(column: Column, obj: Mapping[str, Any], now: datetime) -> Cell:
    value = fieldpath.find(obj, _parts(column))
    if value is None:
        return None
    match column.type:
        case "date":
            return timestamps.age(value, now) if isinstance(value, str) and value else None
        case "integer":
            return value if isinstance(value, int) and not isinstance(value, bool) else None
        case "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case _:
            return value if isinstance(value, str) else _joined(value)


def _joined(value: Any) -> str:
    if isinstance(value, Sequence):
        return ",".join(map(_joined, value)) if not isinstance(value, str) else value
    return text(value) if isinstance(value, bool | int | float) else str(value)


def _parts(column: Column) -> fieldpath.Path:
    return fieldpath.parse(column.json_path.removeprefix("."))
