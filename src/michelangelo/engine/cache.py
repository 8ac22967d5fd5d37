"""The content-hash cache: outputs of earlier successes, found again by what went in.

One CachedOutput object per key, with a name made of the key (engine/cache_key.py), so a look-up is one `get` and two
runs that finish the same work do not disturb each other. Only successes are kept. A miss says why. It executes nothing,
and keeps nobody from computing the same at the same time (engine/single_flight.py does).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.engine.cache_key import CacheKey
from michelangelo.engine.taskruns import label_value
from michelangelo.meta import labels

__all__ = ["Cache", "Hit", "Miss", "label_of"]


@dataclass(frozen=True, slots=True)
class Hit:
    output: Any
    name: str
    source: Mapping[str, Any]
    """`pipelineRun` and `step` that computed it, and `madeAt`."""


@dataclass(frozen=True, slots=True)
class Miss:
    reason: str
    found: Object | None = None
    """The CachedOutput of this key that cannot be used …"""
    aspect: str = ""
    """… because of its `timeToLive`, or its `data`."""


class Cache:
    """CachedOutput objects of one namespace. `has_blobs` says whether all blobs of an encoded value are still there."""

    def __init__(self, client: Client, namespace: str, has_blobs: Callable[[Any], bool]) -> None:
        self.client = client
        self.namespace = namespace
        self._has_blobs = has_blobs

    def find(self, key: CacheKey) -> Hit | Miss:
        try:
            found = self.client.get("CachedOutput", key.object_name, namespace=self.namespace)
        except errors.NotFoundError:
            return Miss("no output is cached for this code, these arguments and this version")
        spec, made_at = found["spec"], found["metadata"]["creationTimestamp"]
        age = datetime.now(UTC) - datetime.fromisoformat(made_at)
        for limit in _limits(key, spec):
            if age > timedelta(seconds=limit):
                reason = f"the cached output is {age.total_seconds():.0f} s old, its time to live is {limit:g} s"
                return Miss(reason, found, "timeToLive")
        if not self._has_blobs(spec.get("output")):
            return Miss("the data of the cached output was deleted", found, "data")
        source = {
            "pipelineRun": (spec.get("sourcePipelineRun") or {}).get("name", ""),
            "step": spec.get("sourcePipelineRunStep", ""),
            "madeAt": made_at,
        }
        return Hit(spec.get("output"), found["metadata"]["name"], source)

    def keep(self, key: CacheKey, output: Any, *, run: str, step: str) -> Object:
        """Make a success findable; the object. What is there already is replaced if it cannot be used any more."""
        obj = self._object(key, output, run, step)
        try:
            return self.client.create(obj)
        except errors.AlreadyExistsError:
            if isinstance(self.find(key), Miss):
                self._replace(obj)
            return obj

    def _replace(self, obj: Object) -> None:
        try:
            self.client.delete("CachedOutput", obj["metadata"]["name"], namespace=self.namespace)
            self.client.create(obj)
        except (errors.NotFoundError, errors.AlreadyExistsError):
            # Another run was quicker with the same.
            return

    def _object(self, key: CacheKey, output: Any, run: str, step: str) -> Object:
        spec: Object = {
            "type": "Variable",
            "variableSpec": {"id": key.digest, "type": "Custom"},
            "output": output,
            "key": key.document(),
            "sourcePipelineRun": {"namespace": self.namespace, "name": run},
            "sourcePipelineRunStep": step,
        }
        if key.ttl_seconds:
            spec["ttlSeconds"] = math.ceil(key.ttl_seconds)
        found = {
            labels.TASK: label_value(key.task),
            labels.PIPELINE_RUN: run,
            labels.CACHE_CODE: label_of(key.code),
            labels.CACHE_ARGUMENTS: label_of(key.arguments),
        }
        return {
            "apiVersion": "michelangelo.api/v2",
            "kind": "CachedOutput",
            "metadata": {"name": key.object_name, "namespace": self.namespace, "labels": found},
            "spec": spec,
        }


def label_of(digest: str) -> str:
    """A digest as the value of a label."""
    return digest.removeprefix("sha256:")[:40]


def _limits(key: CacheKey, spec: Mapping[str, Any]) -> Iterable[float]:
    """The times to live in seconds: the writer's and the reader's both hold."""
    return [
        float(limit)
        for limit in (key.ttl_seconds, spec.get("ttlSeconds"), 86400 * float(spec.get("ttlInDays") or 0))
        if limit
    ]
