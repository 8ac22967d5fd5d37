"""The codec of Spark's DataFrames: data, in the Parquet files that Spark itself writes and reads.

Importing this starts no JVM. Reading takes the session that is active in the task, or Spark's own default one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq
import pyspark.errors
import pyspark.sql

from michelangelo.errors import CodecError
from michelangelo.uniflow import content, scratch
from michelangelo.uniflow.codecs import tables
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__ = ["read", "write_shards"]


def write_shards(value: pyspark.sql.DataFrame, encoder: Encoder) -> dict[str, Any]:
    """A blob per file that Spark writes; the fields of a leaf that names them."""
    folder = tempfile.mkdtemp(prefix="uniflow-", dir=scratch.folder())
    try:
        try:
            value.write.parquet("file://" + os.path.join(folder, "table"), compression="zstd")
        except pyspark.errors.PySparkException as error:
            raise Unencodable(f"Spark cannot write this table as Parquet: {error}; convert the column") from error
        place = os.path.join(folder, "table")
        # Spark gives the files random names that begin with the number of the partition.
        names = sorted(name for name in os.listdir(place) if name.endswith(".parquet"))
        paths = [os.path.join(place, name) for name in names]
        rows = [pq.read_metadata(path).num_rows for path in paths]
        blobs = [encoder.file(path) for path in paths]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "blobs": [blob["blob"] for blob in blobs],
        "sizes": [blob["size"] for blob in blobs],
        "rows": rows,
        "size": sum(blob["size"] for blob in blobs),
        "metadata": tables.shape(sum(rows), value.columns),
    }


def read(leaf: Mapping[str, Any], decoder: Decoder) -> pyspark.sql.DataFrame:
    """The table in a leaf's shards. Spark reads its files when it needs them: they stay as long as the attempt."""
    session = pyspark.sql.SparkSession.getActiveSession() or pyspark.sql.SparkSession.builder.getOrCreate()
    kept = scratch.Folder()
    folder = kept.path
    for number, digest in enumerate(leaf["blobs"]):
        content.copy(decoder.blobs, digest, os.path.join(folder, f"part-{number:05d}.parquet"))
    try:
        frame = session.read.parquet("file://" + folder)
    except pyspark.errors.PySparkException as error:
        raise CodecError(f"Spark cannot read this table: {error}") from error
    frame._uniflow_folder = kept  # type: ignore[attr-defined]  # the folder is to go with the table, not before
    return frame


def _encode(value: pyspark.sql.DataFrame, encoder: Encoder) -> dict[str, Any]:
    return {**write_shards(value, encoder), "type": "pyspark.sql:DataFrame"}


install(Codec("spark", _encode, read, is_data=True), pyspark.sql.DataFrame, subclasses=True)
