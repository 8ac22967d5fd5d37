"""The content-hash cache: outputs of earlier successes, found again by what went in.

The key is the task's code, its arguments by content, and the version that its author gives. One CachedOutput object per
key, with a name made of the key, so a look-up is one `get` and two runs that finish the same work do not disturb each
other. Only successes are kept. A miss says why. It executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from michelangelo import errors
from michelangelo.client.client import Client, Object

__all__ = ["Cache", "CacheKey", "Hit"]


@dataclass(frozen=True, slots=True)
class CacheKey:
    """`ttl_seconds` (0: for ever) is no part of the key: it is what the reader accepts."""

    code: str
    arguments: str
    version: str = ""
    ttl_seconds: float = 0.0

    @property
    def digest(self) -> str:
        text = json.dumps([self.code, self.arguments, self.version], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    @property
    def object_name(self) -> str:
        return f"co-{self.digest}"


@dataclass(frozen=True, slots=True)
class Hit:
    output: Any
    name: str
    source: Mapping[str, Any]
    """`pipelineRun` and `step` that computed it."""


class Cache:
    """CachedOutput objects of one namespace. `has_blobs` says whether all blobs of an encoded value are still there."""

    def __init__(self, client: Client, namespace: str, has_blobs: Callable[[Any], bool]) -> None:
        self._client = client
        self._namespace = namespace
        self._has_blobs = has_blobs

    def find(self, key: CacheKey) -> Hit | str:
        """A hit, or the reason of the miss."""
        try:
            found = self._client.get("CachedOutput", key.object_name, namespace=self._namespace)
        except errors.NotFoundError:
            return "no output is cached for this code, these arguments and this version"
        spec = found["spec"]
        age = datetime.now(UTC) - datetime.fromisoformat(found["metadata"]["creationTimestamp"])
        for limit in _limits(key, spec):
            if age > timedelta(seconds=limit):
                return f"the cached output is {age.total_seconds():.0f} s old, its time to live is {limit:g} s"
        if not self._has_blobs(spec.get("output")):
            return "the data of the cached output was deleted"
        source = {
            "pipelineRun": (spec.get("sourcePipelineRun") or {}).get("name", ""),
            "step": spec.get("sourcePipelineRunStep", ""),
        }
        return Hit(spec.get("output"), found["metadata"]["name"], source)

    def keep(self, key: CacheKey, output: Any, *, run: str, step: str) -> None:
        """Make a success findable. What is there already is replaced if it cannot be used any more."""
        obj = self._object(key, output, run, step)
        try:
            self._client.create(obj)
        except errors.AlreadyExistsError:
            if isinstance(self.find(key), str):
                self._replace(obj)

    def _replace(self, obj: Object) -> None:
        try:
            self._client.delete("CachedOutput", obj["metadata"]["name"], namespace=self._namespace)
            self._client.create(obj)
        except (errors.NotFoundError, errors.AlreadyExistsError):
            # Another run was quicker with the same.
            return

    def _object(self, key: CacheKey, output: Any, run: str, step: str) -> Object:
        spec: Object = {
            "type": "Variable",
            "variableSpec": {"id": key.digest, "type": "Custom"},
            "output": output,
            "key": {"code": key.code, "arguments": key.arguments, "version": key.version},
            "sourcePipelineRun": {"namespace": self._namespace, "name": run},
            "sourcePipelineRunStep": step,
        }
        if key.ttl_seconds:
            spec["ttlSeconds"] = math.ceil(key.ttl_seconds)
        return {
            "apiVersion": "michelangelo.api/v2",
            "kind": "CachedOutput",
            "metadata": {"name": key.object_name, "namespace": self._namespace},
            "spec": spec,
        }


def _limits(key: CacheKey, spec: Mapping[str, Any]) -> Iterable[float]:
    """The times to live in seconds: the writer's and the reader's both hold."""
    return [
        float(limit)
        for limit in (key.ttl_seconds, spec.get("ttlSeconds"), 86400 * float(spec.get("ttlInDays") or 0))
        if limit
    ]
