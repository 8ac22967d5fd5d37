"""What of a Secret may be shown: the names of its keys, and never a value.

Listings, watches and people get the shown form. It carries an annotation, so that a copy of it cannot be mistaken for
the Secret and written back. Encryption at rest is the API server's (`apiserver/sealing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["KIND", "LAST_APPLIED", "WITHHELD", "hidden", "shown"]

KIND: Final = "Secret"
WITHHELD: Final = "michelangelo/withheld"
"""Annotation of the shown form: its values are left out."""
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""Annotation in which `apply` keeps the document that it was given, with its values."""


def hidden(obj: Mapping[str, Any]) -> dict[str, Any]:
    """What of a Secret must not be shown: `data`, and the annotation that repeats it."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    found = {"data": obj.get("data") or {}}
    return {**found, "lastApplied": annotations[LAST_APPLIED]} if LAST_APPLIED in annotations else found


def shown(obj: dict[str, Any]) -> dict[str, Any]:
    """A Secret without its values; any other object as it is."""
    if obj.get("kind") != KIND:
        return obj
    metadata = dict(obj.get("metadata") or {})
    annotations = {key: text for key, text in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    metadata["annotations"] = {**annotations, WITHHELD: "true"}
    rest = {key: value for key, value in obj.items() if key not in ("data", "stringData", "metadata")}
    return {**rest, "metadata": metadata, "data": dict.fromkeys(obj.get("data") or (), "")}
