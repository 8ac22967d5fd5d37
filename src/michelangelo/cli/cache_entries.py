"""CachedOutputs as `mactl cache` lists, chooses and deletes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from michelangelo import errors
from michelangelo.cli.connection import Connection
from michelangelo.client.client import Object
from michelangelo.meta import labels, timestamps

__all__ = ["Choice", "chosen", "delete", "duration", "seconds_left", "size"]


@dataclass(frozen=True, slots=True)
class Choice:
    """All that is given has to hold."""

    names: tuple[str, ...] = ()
    task: str = ""
    run: str = ""
    older_than_seconds: float | None = None


def chosen(link: Connection, namespace: str, choice: Choice) -> list[Object]:
    """The newest first. NotFoundError when one that is named is not there."""
    if choice.names:
        found = [link.client.get("CachedOutput", name, namespace=namespace) for name in choice.names]
    else:
        selector = f"{labels.PIPELINE_RUN}={choice.run}" if choice.run else ""
        found = list(link.client.list("CachedOutput", namespace=namespace, label_selector=selector).items)
    now = timestamps.system_clock()
    found = [one for one in found if _holds(one, choice, now)]
    return sorted(found, key=lambda one: int(one["metadata"]["resourceVersion"]), reverse=True)


def delete(link: Connection, obj: Object) -> None:
    """That one, not one that was made since."""
    metadata = obj["metadata"]
    with contextlib.suppress(errors.NotFoundError, errors.ConflictError):
        link.client.delete("CachedOutput", metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"])


def seconds_left(obj: Object, now: datetime) -> float | None:
    """Of its time to live; 0 when that is over; None when it has none."""
    spec = obj["spec"]
    limits = [float(spec.get("ttlSeconds") or 0), 86400.0 * float(spec.get("ttlInDays") or 0)]
    given = [limit for limit in limits if limit]
    return max(0.0, min(given) - _age(obj, now)) if given else None


def duration(seconds: float) -> str:
    """`3d4h`, `5m10s`: two units."""
    words = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(int(seconds), length)
        if count:
            words.append(f"{count}{unit}")
    return "".join(words[:2]) or "over"


def size(tree: Any) -> int:
    """Bytes of an encoded value: of its blobs, and of what is inline."""
    return len(json.dumps(tree)) + _blob_bytes(tree)


def _blob_bytes(tree: Any) -> int:
    if isinstance(tree, Mapping):
        own = int(tree.get("size") or 0) if "$codec" in tree and ("blob" in tree or "blobs" in tree) else 0
        return own + sum(map(_blob_bytes, tree.values()))
    return sum(map(_blob_bytes, tree)) if isinstance(tree, list) else 0


def _holds(obj: Object, choice: Choice, now: datetime) -> bool:
    spec = obj["spec"]
    return (
        (not choice.task or (spec.get("key") or {}).get("task") == choice.task)
        and (not choice.run or (spec.get("sourcePipelineRun") or {}).get("name") == choice.run)
        and (choice.older_than_seconds is None or _age(obj, now) > choice.older_than_seconds)
    )


def _age(obj: Object, now: datetime) -> float:
    return (now - datetime.fromisoformat(obj["metadata"]["creationTimestamp"])).total_seconds()
