"""Upstream's place of `Ref`: large data as a workflow's own code sees it. It has `load()` in the place of a `url`."""

from __future__ import annotations

from michelangelo.uniflow.ref import Ref as Ref

__all__: list[str] = []
