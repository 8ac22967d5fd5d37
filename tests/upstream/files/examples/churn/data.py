"""The tasks that prepare data, in a module of their own."""

import os

import michelangelo.uniflow.core as uniflow
from michelangelo.uniflow.core.image_spec import ImageSpec
from michelangelo.uniflow.core.io_registry import default_io


@uniflow.task(
    None, None, default_io, cache_enabled=True, cache_version="v1", image_spec=ImageSpec(container_image="a/b:1")
)
def load_data(path: str, name: str, limit: int | None = None):
    size = int(os.environ.get("DATA_SIZE", "1000"))
    rows = [(index % 7, index % 3 == 0) for index in range(min(size, limit or size))]
    middle = len(rows) * 8 // 10
    return rows[:middle], rows[middle:], {"path": path, "name": name}
