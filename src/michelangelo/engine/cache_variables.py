"""What the variables of a run say of the cache, with upstream's names.

`CACHE_ENABLED_<task>` decides for one task, over its decorator, in either direction; `CACHE_ENABLED=true` is for all
that say nothing. `CACHE_VERSION_<task>` and then `CACHE_VERSION` give a version where the decorator gives none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from michelangelo.uniflow.task import Task

__all__ = ["applied"]


def applied(task: Task[..., Any], variables: Mapping[str, str]) -> Task[..., Any]:
    """The task with what the variables say; the same object where they say nothing."""
    if not any(name.startswith("CACHE_") for name in variables):
        return task
    options = task.options
    own = variables.get(f"CACHE_ENABLED_{task.name}", "").strip().lower()
    enabled = options.cache_enabled or variables.get("CACHE_ENABLED", "").strip().lower() == "true"
    if own in ("true", "false"):
        enabled = own == "true"
    version = options.cache_version or variables.get(f"CACHE_VERSION_{task.name}") or variables.get("CACHE_VERSION")
    return Task(task.fn, dataclasses.replace(options, cache_enabled=enabled, cache_version=version or None))
