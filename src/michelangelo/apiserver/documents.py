"""How an object becomes a record of the store and back: keys, bytes, index terms, the injected resourceVersion.

The bytes in the store never hold `metadata.resourceVersion`: it is the revision of the record, so it cannot be wrong.
This module judges nothing; what may be stored is decided in `admission`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from michelangelo import errors
from michelangelo.apiserver import sealing
from michelangelo.client.client import Object

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.storage.store import Record

__all__ = ["MAX_OBJECT_BYTES", "decode", "decode_sealed", "encode", "key", "prefix", "subject"]

MAX_OBJECT_BYTES: Final = 3 * 512 * 1024
"""1.5 MiB, as etcd has it: what is larger is data and belongs into a blob."""


def prefix(kind: Kind, namespace: str = "") -> str:
    """What the keys of all objects of this kind (in this namespace) start with."""
    return f"/{kind.resource}/{namespace}/" if namespace and kind.namespaced else f"/{kind.resource}/"


def key(kind: Kind, namespace: str, name: str) -> str:
    return prefix(kind, namespace) + name


def encode(obj: Object) -> bytes:
    """The bytes to store. Raises RequestTooLargeError above MAX_OBJECT_BYTES, BadRequestError for what JSON cannot
    carry."""
    metadata = obj["metadata"]
    if "resourceVersion" in metadata:
        stored = {name: value for name, value in metadata.items() if name != "resourceVersion"}
        obj = {**obj, "metadata": stored}
    try:
        value = orjson.dumps(obj)
    except TypeError as e:
        raise errors.BadRequestError(f"{subject(obj)} cannot be written as JSON: {e}") from e
    if len(value) > MAX_OBJECT_BYTES:
        raise errors.RequestTooLargeError(
            f"{subject(obj)} is {len(value)} bytes as JSON; the limit for one object is {MAX_OBJECT_BYTES}. "
            "Put large data into a blob and refer to it."
        )
    return value


def decode(record: Record) -> Object:
    """A fresh object, which the caller may change, as listings and watches give it: a Secret without its values."""
    return sealing.shown(decode_sealed(record))


def decode_sealed(record: Record) -> Object:
    """A fresh object as it is stored: what is secret in it is sealed."""
    obj: dict[str, Any] = orjson.loads(record.value)
    obj["metadata"]["resourceVersion"] = str(record.revision)
    return obj


def subject(obj: Object) -> str:
    """How messages name an object: `Pipeline a/b`."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    name = metadata.get("name") or metadata.get("generateName") or "without a name"
    namespace = metadata.get("namespace")
    return f"{obj.get('kind') or 'object'} {namespace}/{name}" if namespace else f"{obj.get('kind') or 'object'} {name}"
