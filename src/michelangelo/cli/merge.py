"""What `apply` has to change: the three-way difference of what was applied, what is wanted and what is there.

Pure functions on JSON. The last applied configuration is kept where kubectl keeps it, so that both can be used.
"""

from __future__ import annotations

import copy
import json
from typing import Any, Final

from michelangelo.client.client import Object
from michelangelo.meta import secrecy

__all__ = ["LAST_APPLIED", "last_applied", "merge_patch", "three_way", "with_last_applied"]

LAST_APPLIED: Final = secrecy.LAST_APPLIED


def with_last_applied(wanted: Object) -> Object:
    """`wanted`, carrying itself in its annotation."""
    marked = copy.deepcopy(wanted)
    metadata = marked.setdefault("metadata", {})
    annotations = dict(metadata.pop("annotations", None) or {})
    annotations.pop(LAST_APPLIED, None)
    if annotations:
        metadata["annotations"] = annotations
    text = json.dumps(marked, separators=(",", ":"), sort_keys=True) + "\n"
    metadata["annotations"] = {**annotations, LAST_APPLIED: text}
    return marked


def last_applied(live: Object) -> Object:
    """What was applied last; empty when nothing was, or when somebody broke it."""
    text = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED, "")
    try:
        document = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def three_way(live: Object, wanted: Object) -> Object:
    """The merge patch that takes `live` to `wanted`: fields that were applied before and are no longer wanted go,
    fields that somebody else set stay. Empty when nothing has to change."""
    applied = _with_annotations(last_applied(live))
    patch = _difference(applied, _with_annotations(wanted), _with_annotations(live))
    if not patch:
        return {}
    annotation = with_last_applied(wanted)["metadata"]["annotations"][LAST_APPLIED]
    metadata = patch.setdefault("metadata", {})
    annotations = metadata.get("annotations")
    metadata["annotations"] = {**(annotations or {}), LAST_APPLIED: annotation}
    return patch


def merge_patch(old: Any, new: Any) -> Any:
    """The JSON merge patch from one object to another."""
    return _difference(old, new, old)


def _with_annotations(obj: Object) -> Object:
    """Annotations are always a map here: kubectl writes an empty one into what it applied, others leave it out."""
    metadata = obj.get("metadata") or {}
    annotations = {key: text for key, text in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def _difference(applied: Any, wanted: Object, live: Any) -> Object:
    live = live if isinstance(live, dict) else {}
    patch: Object = {}
    for key, value in wanted.items():
        if value is None:
            if key in live:
                patch[key] = None
        elif isinstance(value, dict) and isinstance(live.get(key), dict):
            before = applied.get(key) if isinstance(applied, dict) else None
            if inner := _difference(before, value, live[key]):
                patch[key] = inner
        elif key not in live or value != live[key]:
            patch[key] = value
    removed = [key for key in applied if key not in wanted and key in live] if isinstance(applied, dict) else []
    return {**patch, **dict.fromkeys(removed)}
