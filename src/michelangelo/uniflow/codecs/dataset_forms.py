"""The forms of a DatasetVariable: its Parquet files as pandas, Ray and Spark values, and back.

`store_…` writes a value into blobs, `load_…` takes it from there; `save_…` and `open_…` are the same with a folder.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from michelangelo.blobs.blob_store import BlobStore
from michelangelo.errors import CodecError
from michelangelo.uniflow.codecs import tables
from michelangelo.uniflow.codecs.tree import Decoder, Encoder

__all__ = [
    "load_pandas",
    "load_ray",
    "load_spark",
    "open_pandas",
    "open_ray",
    "open_spark",
    "save_pandas",
    "save_ray",
    "save_spark",
    "store_files",
    "store_pandas",
    "store_ray",
    "store_spark",
]


def store_pandas(value: Any, encoder: Encoder) -> dict[str, Any]:
    frames = _family("frames")
    schema = _readable_by_spark(frames.arrow_schema(value), value)
    leaf = tables.write_shards(frames.arrow_pieces(value, schema), encoder, schema=schema)
    return {**leaf, "metadata": tables.shape(len(value), value.columns)}


def store_ray(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf: dict[str, Any] = _family("ray_datasets").write_shards(value, encoder)
    return leaf


def store_spark(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf: dict[str, Any] = _family("spark_frames").write_shards(value, encoder)
    return leaf


def store_files(folder: str, encoder: Encoder) -> dict[str, Any]:
    """What was saved, whoever did."""
    paths = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".parquet"))
    footers = [pq.read_metadata(path) for path in paths]
    blobs = [encoder.file(path) for path in paths]
    names = [] if not footers else footers[0].schema.to_arrow_schema().names
    return {
        "blobs": [blob["blob"] for blob in blobs],
        "sizes": [blob["size"] for blob in blobs],
        "rows": [footer.num_rows for footer in footers],
        "size": sum(blob["size"] for blob in blobs),
        "metadata": tables.shape(sum(footer.num_rows for footer in footers), names),
    }


def load_pandas(leaf: Mapping[str, Any], blobs: BlobStore) -> Any:
    return _pandas(list(tables.read_shards(leaf, Decoder(blobs))))


def _pandas(found: list[pa.Table]) -> Any:
    table = pa.concat_tables(found, promote_options="permissive") if found else pa.table({})
    found.clear()  # else it would hold the columns that are converted
    return _family("frames").to_pandas(table)


def load_ray(leaf: Mapping[str, Any], blobs: BlobStore) -> Any:
    return _family("ray_datasets").dataset(leaf, blobs)


def load_spark(leaf: Mapping[str, Any], blobs: BlobStore) -> Any:
    return _family("spark_frames").read(leaf, Decoder(blobs))


def save_pandas(value: Any, folder: str) -> None:
    frames = _family("frames")
    schema = _readable_by_spark(frames.arrow_schema(value), value)
    _save(frames.arrow_pieces(value, schema), folder, lambda: schema)


def save_ray(value: Any, folder: str) -> None:
    ray_datasets = _family("ray_datasets")
    _save(ray_datasets.stream(value), folder, lambda: ray_datasets.schema(value))


def save_spark(value: Any, folder: str) -> None:
    value.write.mode("append").parquet("file://" + folder, compression="zstd")


def open_pandas(folder: str) -> Any:
    names = sorted(name for name in os.listdir(folder) if name.endswith(".parquet"))
    return _pandas([pq.ParquetFile(os.path.join(folder, name)).read() for name in names])


def open_ray(folder: str) -> Any:
    return _library("ray.data").read_parquet(folder)


def open_spark(folder: str) -> Any:
    session = _library("pyspark.sql").SparkSession
    return (session.getActiveSession() or session.builder.getOrCreate()).read.parquet("file://" + folder)


def _save(found: Iterable[pa.Table], folder: str, schema: Callable[[], pa.Schema]) -> None:
    """A file per piece; one without rows when there are none."""
    number = -1
    for number, piece in enumerate(tables.pieces(found)):
        pq.write_table(piece, _file(folder, number), compression="zstd")
    if number < 0:
        pq.write_table(schema().empty_table(), _file(folder, 0), compression="zstd")


def _file(folder: str, number: int) -> str:
    return os.path.join(folder, f"part-{number:05d}.parquet")


def _readable_by_spark(schema: pa.Schema, frame: Any) -> pa.Schema:
    """Times of nanoseconds, which Spark refuses, as microseconds where that loses nothing."""
    for number, field in enumerate(schema):
        if not (pa.types.is_timestamp(field.type) and field.type.unit == "ns") or number >= len(frame.columns):
            continue
        column = frame.iloc[:, number]
        if (column.dropna().dt.nanosecond == 0).all():
            schema = schema.set(number, field.with_type(pa.timestamp("us", field.type.tz)))
    return schema


def _family(name: str) -> Any:
    return _library(f"michelangelo.uniflow.codecs.{name}")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CodecError(
            f"this form of a dataset needs a library that is not installed: {error}; "
            "install michelangelo-oss[data], [ray] or [spark]"
        ) from error
