"""Upstream's place of `ImageSpec`."""

from __future__ import annotations

from michelangelo.uniflow.image_spec import ImageSpec as ImageSpec

__all__: list[str] = []
