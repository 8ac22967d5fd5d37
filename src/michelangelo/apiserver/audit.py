"""The audit log: one JSON line for each write that took effect. It says who did what to which object, from which
version to which, and never what was in it."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from michelangelo import errors
from michelangelo.meta import timestamps

if TYPE_CHECKING:
    from datetime import datetime

    from michelangelo.api.v2.registry import Kind
    from michelangelo.client.client import Object

__all__ = ["AuditEntry", "AuditFile", "AuditLog", "entry"]

logger = logging.getLogger(__name__)

AuditEntry = dict[str, Any]


class AuditLog(Protocol):
    """May be called from any thread."""

    def write(self, entry: AuditEntry) -> None: ...

    def close(self) -> None: ...


class AuditFile:
    """Appends lines to a file of mode 0600; each line is one write, so several processes may share it."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError when the file cannot be opened."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise errors.SettingsError(f"cannot open the audit log {path}: {e.strerror}") from e
        self._lock = threading.Lock()

    def write(self, entry: AuditEntry) -> None:
        with self._lock:
            if self._file < 0:
                return
            try:
                os.write(self._file, orjson.dumps(entry) + b"\n")
            except OSError as e:
                # The write that it tells of is done; refusing it now would be a lie.
                logger.error("cannot write the audit log: %s; the entry was %s", e.strerror, entry)

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


def entry(user: str, verb: str, kind: Kind, obj: Object, before: str, now: datetime) -> AuditEntry:
    metadata = obj["metadata"]
    return {
        "time": timestamps.format_micros(now),
        "user": user,
        "verb": verb,
        "resource": kind.resource,
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "uid": metadata["uid"],
        "from": before,
        "to": metadata["resourceVersion"],
    }
