"""The codec of Ray Datasets: data, streamed into shards, and read again by Ray's workers, each shard where it is used.

Neither way is a dataset ever whole in one process, nor in Ray's object store. It starts no Ray by itself before the
dataset is used.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray.data
import ray.data.block

from michelangelo.blobs.blob_store import BlobStore
from michelangelo.uniflow.codecs import tables
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder

__all__ = ["dataset", "schema", "stream", "write_shards"]


def stream(value: ray.data.Dataset) -> Iterator[pa.Table]:
    """The blocks of a dataset in their order, one at a time in this process."""
    options = value.context.execution_options
    ordered, options.preserve_order = options.preserve_order, True
    try:
        for batch in value.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            block: Any = batch
            tables.check_schema(block.schema)
            yield block
    finally:
        options.preserve_order = ordered


def dataset(leaf: Mapping[str, Any], blobs: BlobStore) -> ray.data.Dataset:
    """The dataset in a leaf's shards; nothing of them is read before it is used."""
    if not sum(leaf["rows"]):  # Ray drops blocks without rows, and would forget the columns
        return ray.data.from_arrow([tables.read(digest, Decoder(blobs)) for digest in leaf["blobs"]])
    made: ray.data.Dataset = ray.data.read_datasource(_Shards(leaf, blobs))
    return made


class _Shards(ray.data.Datasource):
    """A read task per shard."""

    def __init__(self, leaf: Mapping[str, Any], blobs: BlobStore) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray gives it no types
        self._leaf = leaf
        self._blobs = blobs

    def get_name(self) -> str:
        return "Blobs"

    def estimate_inmemory_data_size(self) -> int | None:
        return int(self._leaf["size"])

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ray.data.ReadTask]:
        shards = zip(self._leaf["blobs"], self._leaf["sizes"], self._leaf["rows"], strict=True)
        return [
            ray.data.ReadTask(
                functools.partial(_read, digest, self._blobs),
                ray.data.block.BlockMetadata(num_rows=rows, size_bytes=size, exec_stats=None, input_files=None),
            )
            for digest, size, rows in shards
        ]


def _read(digest: str, blobs: BlobStore) -> Sequence[pa.Table]:
    """In a worker of Ray: the bytes are checked there."""
    return [tables.read(digest, Decoder(blobs))]


def write_shards(value: ray.data.Dataset, encoder: Encoder) -> dict[str, Any]:
    """A blob per piece of the dataset; the fields of a leaf that names them, with its shape."""
    names: list[str] = []

    def blocks() -> Iterator[pa.Table]:
        for block in stream(value):
            names[:] = block.schema.names
            yield block

    leaf = tables.write_shards(blocks(), encoder)
    if not leaf["blobs"]:
        names = schema(value).names
        leaf = tables.write_shards([], encoder, schema=schema(value))
    return {**leaf, "metadata": tables.shape(sum(leaf["rows"]), names)}


def schema(value: ray.data.Dataset) -> pa.Schema:
    """The columns of a dataset without rows, where Ray knows them."""
    found = getattr(value.schema(), "base_schema", None)
    return found if isinstance(found, pa.Schema) else pa.schema([])


def _encode(value: ray.data.Dataset, encoder: Encoder) -> dict[str, Any]:
    return {**write_shards(value, encoder), "type": "ray.data:Dataset"}


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> ray.data.Dataset:
    return dataset(leaf, decoder.blobs)


install(Codec("ray-dataset", _encode, _decode, is_data=True), ray.data.Dataset, subclasses=True)
