"""Answers: objects, lists and errors in the form that the client asked for. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson
import yaml
from starlette.responses import Response

from michelangelo.apiserver.http import tables
from michelangelo.apiserver.http.negotiation import Form

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.client.client import Object, ObjectList

__all__ = ["document", "listing", "shaped", "single"]


def document(content: Any, form: Form, code: int = 200, warnings: Iterable[str] = ()) -> Response:
    """Any JSON document."""
    response = Response(_encode(content, form), code, media_type=_media_type(form))
    for warning in warnings:
        text = warning.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\").replace('"', '\\"')
        response.headers.append("warning", f'299 - "{text[:1000]}"')
    return response


def single(
    kind: Kind, obj: Object, form: Form, code: int = 200, warnings: Iterable[str] = (), *, include: str = "Metadata"
) -> Response:
    """One object; a Status stays one whatever was asked for."""
    if obj.get("kind") != "Status":
        obj = shaped(kind, obj, form, include=include)
    else:
        form = Form(form.encoding)
    return document(obj, form, code, warnings)


def shaped(kind: Kind, obj: Object, form: Form, *, include: str = "Metadata", with_columns: bool = True) -> Object:
    """One object as an answer or an event shows it. `with_columns` is False for all rows of a watch but the first."""
    if form.shape == "Table":
        version = obj["metadata"].get("resourceVersion", "")
        return tables.table(kind, [obj], form, {"resourceVersion": version}, include=include, with_columns=with_columns)
    if form.shape == "PartialObjectMetadata":
        return tables.partial(obj, form)
    return obj


def listing(kind: Kind, found: ObjectList, form: Form, *, include: str = "Metadata") -> Response:
    metadata: dict[str, Any] = {"resourceVersion": found.resource_version}
    if found.continue_token:
        metadata["continue"] = found.continue_token
        if found.remaining:
            metadata["remainingItemCount"] = found.remaining
    if form.shape == "Table":
        return document(tables.table(kind, found.items, form, metadata, include=include), form)
    if form.shape == "PartialObjectMetadataList":
        items = [tables.partial(obj, form) for obj in found.items]
        content: dict[str, Any] = {"kind": form.shape, "apiVersion": form.api_version}
        return document({**content, "metadata": metadata, "items": items}, form)
    content = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version}
    return document({**content, "metadata": metadata, "items": found.items}, form)


def _encode(content: Any, form: Form) -> bytes:
    if form.encoding == "yaml":
        text: bytes = yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False, encoding="utf-8")
        return text
    return orjson.dumps(content)


def _media_type(form: Form) -> str:
    if form.shape == "APIGroupDiscoveryList":
        return f"application/json;g={form.group};v={form.version};as={form.shape}"
    return f"application/{form.encoding}"
