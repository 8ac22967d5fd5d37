"""Writing the status of an object: only what changed, and only over the state that was looked at."""

from __future__ import annotations

import copy

from michelangelo.client.client import Client, Object

__all__ = ["draft", "write"]


def draft(obj: Object) -> Object:
    """A copy whose status may be changed; the objects of an informer are shared."""
    return {**obj, "status": copy.deepcopy(obj.get("status") or {})}


def write(client: Client, seen: Object, wanted: Object) -> Object:
    """The object as it is stored then. Raises ConflictError when it has changed since `seen`."""
    if wanted["status"] == (seen.get("status") or {}):
        return seen
    return client.update(wanted, subresource="status")
