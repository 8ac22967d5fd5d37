"""Ray: what a task says to run in a Ray cluster. Data only; ray itself is loaded where the task runs."""

from __future__ import annotations

from michelangelo.uniflow.plugins.ray.io import UF_PLUGIN_RAY_USE_FSSPEC, RayDatasetIO
from michelangelo.uniflow.plugins.ray.task import RayTask

__all__ = ["UF_PLUGIN_RAY_USE_FSSPEC", "RayDatasetIO", "RayTask"]
