"""What surrounds the tasks of a run: the locks of their requirements, their folders, and what is recorded of both.

A run's locks are in its manifest, under the digest of the requirements as the task's author wrote them, so every
attempt, on every machine and after every resume, gets the same versions; a lock itself, with the hashes of all files,
is a blob, for it may be larger than all the rest of the manifest. Locks are made by the host of the driver
(app/environments.py) before the run exists; environments are made of them by executors.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from michelangelo import errors
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.client.client import Object
from michelangelo.engine.steps import Policy

__all__ = ["TaskEnvironments", "lock_name", "of_run", "recorded"]


def lock_name(requirements: Sequence[str]) -> str:
    """The key of these requirements in `manifest.environments`."""
    return hashlib.sha256(json.dumps(list(requirements)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class TaskEnvironments:
    locked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`manifest.environments`, by `lock_name`."""
    read: Callable[[str], Sequence[str]] = lambda digest: ()
    """The lines of a lock."""
    folder: str = ""
    """What relative working directories are relative to; empty: where the driver runs."""

    def lock(self, policy: Policy) -> Sequence[str]:
        """The lines for `Attempt.requirements`. Raises ExecutorError, and StorageError when the lock is not there."""
        if not policy.requirements:
            return ()
        found = self.locked.get(lock_name(policy.requirements))
        if found is None:
            raise errors.ExecutorError(
                f"the requirements {', '.join(policy.requirements)} were not locked when the run was made: give them "
                "to @uniflow.task, or to a with_overrides() at the top level of a module, and register a pipeline with "
                "`mactl pipeline apply`"
            )
        return self.read(str(found["lock"]))

    def working_directory(self, policy: Policy) -> str:
        """Empty: where the executor runs."""
        return os.path.join(self.folder or os.getcwd(), policy.working_directory) if policy.working_directory else ""

    def cache_lines(self, requirements: Sequence[str]) -> Sequence[str]:
        """A cached output holds for the versions of packages that it was computed with."""
        found = self.locked.get(lock_name(requirements)) if requirements else None
        return requirements if found is None else found.get("packages") or ()


def of_run(run: Object, blobs: BlobStore, folder: str = "") -> TaskEnvironments:
    """Those of the manifest that was pinned when the run was accepted, or of a run without a pipeline."""
    pinned = ((run.get("status") or {}).get("sourcePipeline") or {}).get("pipeline") or {}
    spec = pinned.get("spec") or run["spec"].get("pipelineSpec") or {}
    locked = (spec.get("manifest") or {}).get("environments") or {}
    read = functools.cache(lambda digest: tuple(blobs.get(digest).decode().splitlines()))
    return TaskEnvironments(locked, read, folder)


def recorded(policy: Policy) -> dict[str, Any]:
    """What an attempt's `details` say of its surroundings; nothing where the task asks for nothing."""
    details: dict[str, Any] = {}
    if policy.requirements:
        details["requirements"] = list(policy.requirements)
        details["environment"] = lock_name(policy.requirements)
    if policy.working_directory:
        details["workingDirectory"] = policy.working_directory
    if "image" in policy.config:
        details["image"] = policy.config["image"]
    asked = policy.resources
    limits = {"cpu": policy.config.get("cpu"), "memoryBytes": asked.memory_bytes, "gpu": asked.gpu}
    if given := {name: value for name, value in limits.items() if value}:
        details["resources"] = given
    return details
