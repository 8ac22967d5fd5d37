"""Variables that go from task to task: `DatasetVariable`. Importing this loads no library of data."""

from __future__ import annotations

from michelangelo.uniflow.codecs.dataset_variable import DatasetVariable

__all__ = ["DatasetVariable"]
