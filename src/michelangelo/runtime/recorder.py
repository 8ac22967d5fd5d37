"""Events: what happened to an object, for people, as core/v1 Event objects that `kubectl describe` shows.

The same thing happening again counts up instead of adding an object: the event's name is made from what it says, so
that this holds over restarts and several processes too. Events are a courtesy: a failure to write one is logged,
never raised."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Mapping
from typing import Any, Final, Literal

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.meta import timestamps

__all__ = ["Recorder"]

_log = logging.getLogger(__name__)
_RACES: Final = 3
_MAX_MESSAGE_CHARACTERS: Final = 1024
"""As in Kubernetes."""


class Recorder:
    """Writes events as `component` (the controller's name)."""

    def __init__(self, client: Client, component: str, *, clock: timestamps.Clock = timestamps.system_clock) -> None:
        self._client = client
        self._component = component
        self._clock = clock

    def event(self, about: Mapping[str, Any], type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Record what happened to the object `about`. `reason` is one CamelCase word, `message` a sentence."""
        event = self._event(about, type, reason, message[:_MAX_MESSAGE_CHARACTERS])
        try:
            self._write(event)
        except (errors.ApiError, errors.StorageError) as e:
            _log.warning("event %s %s could not be recorded: %s", reason, event["metadata"]["name"], e)

    def _write(self, event: Object) -> None:
        metadata = event["metadata"]
        for _ in range(_RACES):
            try:
                self._client.create(event)
                return
            except errors.AlreadyExistsError:
                pass
            try:
                known = self._client.get("Event", metadata["name"], namespace=metadata["namespace"])
                known["count"] = int(known.get("count") or 1) + 1
                known["lastTimestamp"] = event["lastTimestamp"]
                self._client.update(known)
                return
            except (errors.ConflictError, errors.NotFoundError):
                continue

    def _event(self, about: Mapping[str, Any], type: str, reason: str, message: str) -> Object:
        metadata = about["metadata"]
        now = timestamps.now(self._clock)
        involved = {
            "apiVersion": about.get("apiVersion", ""),
            "kind": about.get("kind", ""),
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        }
        said = "\0".join((involved["kind"], involved["uid"], self._component, type, reason, message))
        digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:230].rstrip('.-')}.{digest}",
                # As in Kubernetes: what happens to cluster-scoped objects is told in `default`.
                "namespace": metadata.get("namespace") or "default",
            },
            "involvedObject": {key: value for key, value in involved.items() if value},
            "type": type,
            "reason": reason,
            "message": message,
            "source": {"component": self._component, "host": socket.gethostname()},
            "reportingComponent": self._component,
            "reportingInstance": socket.gethostname(),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
