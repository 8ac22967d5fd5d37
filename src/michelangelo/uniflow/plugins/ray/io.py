"""Upstream's reader and writer of Ray Datasets, for code that calls it itself; between tasks they travel without it."""

from __future__ import annotations

import importlib
from typing import Any, Final

from michelangelo.uniflow.codecs.io_registry import IO

__all__ = ["UF_PLUGIN_RAY_USE_FSSPEC", "RayDatasetIO"]

UF_PLUGIN_RAY_USE_FSSPEC: Final = "UF_PLUGIN_RAY_USE_FSSPEC"
"""The name of a variable that upstream reads. It decides nothing here: Ray itself finds the way to a URL."""


class RayDatasetIO(IO[Any]):
    """Writes a `ray.data.Dataset` as Parquet files, and reads it."""

    def write(self, url: str, value: Any) -> None:
        value.write_parquet(url)

    def read(self, url: str, metadata: Any) -> Any:
        # By name: only where somebody asks for a dataset is Ray there for certain.
        return importlib.import_module("ray.data").read_parquet(url)
