"""Request bodies: bytes to plain JSON data, with a bound on everything that a hostile body could grow. It knows no
kind."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson
import yaml
from starlette.requests import Request

from michelangelo import errors
from michelangelo.meta import depth

__all__ = [
    "MAX_BODY_BYTES",
    "JSON_PATCH",
    "MERGE_PATCH",
    "STRATEGIC_PATCH",
    "media_type",
    "parse",
    "parse_yaml",
    "read",
]

MAX_BODY_BYTES: Final = 3 * 1024 * 1024
_MAX_NODES: Final = 250_000
"""Keys and values of a YAML document, counted as if its aliases were written out."""
_INLINE_YAML: Final = 16 * 1024
"""Longer YAML is parsed in a thread: a megabyte takes a second."""
_DRAINED: Final = 8
"""How many times the limit is read of a body before its connection is given up."""
_TYPES: Final = ("application/json", "application/yaml")

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: what looks like a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


async def read(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body. Raises RequestTooLargeError for one above `limit` bytes.

    What is too large is still taken off the wire, within reason: a client that cannot send would not read the answer.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > limit * _DRAINED:
            break
        else:
            chunks.clear()
    if size > limit:
        raise errors.RequestTooLargeError(f"Request entity too large: limit is {limit} bytes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def media_type(request: Request) -> str:
    """The type of the body without its parameters; JSON where none is said."""
    return (
        request.headers.get("content-type", "application/json").partition(";")[0].strip().lower() or "application/json"
    )


async def parse(body: bytes, kind_of_body: str, accepted: tuple[str, ...] = _TYPES) -> Any:
    """JSON or YAML data. Raises UnsupportedMediaTypeError, BadRequestError, RequestTooLargeError."""
    if kind_of_body not in accepted:
        raise errors.UnsupportedMediaTypeError(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
        )
    if kind_of_body.endswith("yaml"):
        if len(body) <= _INLINE_YAML:
            return parse_yaml(body)
        return await asyncio.to_thread(parse_yaml, body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as e:
        raise errors.BadRequestError(f"the body of the request is not JSON: {e}") from e


def parse_yaml(body: bytes) -> Any:
    """The one document in `body`. Raises BadRequestError, RequestTooLargeError."""
    try:
        _check_events(body)
        data = yaml.load(body, Loader=_Loader)
        return _plain(data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as e:
        raise errors.BadRequestError(f"the body of the request is not YAML: {e}") from e


def _check_events(body: bytes) -> None:
    """Bounds depth before anything recurses over the document."""
    level = count = 0
    for event in yaml.parse(body, Loader=_Loader):
        if isinstance(event, yaml.events.CollectionStartEvent):
            level += 1
            if level > depth.MAX_DEPTH:
                raise errors.BadRequestError(f"the YAML document is nested deeper than {depth.MAX_DEPTH} levels")
        elif isinstance(event, yaml.events.CollectionEndEvent):
            level -= 1
        elif isinstance(event, yaml.events.NodeEvent):
            count += 1
            if count > _MAX_NODES:
                raise _too_many()


def _plain(data: Any) -> Any:
    """The same data with text as keys, aliases written out, within the bounds."""
    budget = _MAX_NODES

    def walk(node: Any, level: int) -> Any:
        nonlocal budget
        budget -= 1
        if budget < 0:
            raise _too_many()
        if level > depth.MAX_DEPTH:
            raise errors.BadRequestError(f"the YAML document is nested deeper than {depth.MAX_DEPTH} levels")
        if isinstance(node, dict):
            return {_key(key): walk(value, level + 1) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value, level + 1) for value in node]
        if node is None or isinstance(node, str | int | float):
            return node
        raise errors.BadRequestError(f"the YAML document holds a {type(node).__name__}, which JSON has not")

    return walk(data, 0)


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int | float):
        return str(key)
    raise errors.BadRequestError(f"the YAML document has a key that is no text: {type(key).__name__}")


def _too_many() -> errors.RequestTooLargeError:
    return errors.RequestTooLargeError(
        f"the YAML document has more than {_MAX_NODES} values once its aliases are written out"
    )
