"""Codecs of Hugging Face datasets: Dataset and DatasetDict, in shards of Parquet with their features. They are data.

A dataset is written batch by batch and comes back as a memory map of a file in the attempt's own folder, so that it may
be larger than the memory. Streaming datasets have no end, and are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import datasets.table
import pyarrow as pa
from datasets.features import features

from michelangelo.uniflow import scratch
from michelangelo.uniflow.codecs import tables
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []

_BATCH_ROWS = 1000


def _encode(value: datasets.Dataset, encoder: Encoder) -> dict[str, Any]:
    form = value.format
    if form["type"] == "custom":
        raise Unencodable(
            "dataset with a transform of its own; return dataset.with_format(None), or the mapped dataset"
        )
    leaf = tables.write_shards(_batches(value), encoder, schema=value.features.arrow_schema)
    return {
        **leaf,
        "type": "datasets:Dataset",
        "metadata": tables.shape(value.num_rows, value.column_names),
        "features": encoder.child(value.features.to_dict()),
        "format": encoder.child(form),
        "split": None if value.split is None else str(value.split),
    }


def _batches(value: datasets.Dataset) -> Iterator[pa.Table]:
    # Files that a column only points to (images, sounds) go with it.
    embed = any(features.require_storage_embed(feature) for feature in value.features.values())
    schema = value.features.arrow_schema
    for batch in value.with_format("arrow").iter(batch_size=_BATCH_ROWS):
        table = batch.select(schema.names).cast(schema)
        yield datasets.table.embed_table_storage(table) if embed else table


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> datasets.Dataset:
    columns = datasets.Features.from_dict(decoder.whole(leaf["features"]))
    kept = scratch.Folder()
    path = os.path.join(kept.path, "data.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, columns.arrow_schema) as writer:
        for table in tables.read_shards(leaf, decoder):
            writer.write_table(table.cast(columns.arrow_schema), max_chunksize=_BATCH_ROWS)
    info = datasets.DatasetInfo(features=columns)
    split = None if leaf["split"] is None else datasets.NamedSplit(leaf["split"])
    found = datasets.Dataset.from_file(path, info=info, split=split)
    found._uniflow_folder = kept
    form = decoder.whole(leaf["format"])
    if form["type"] is not None or form["columns"] != found.column_names:
        found.set_format(form["type"], form["columns"], form["output_all_columns"], **form["format_kwargs"])
    return found


def _encode_dict(value: datasets.DatasetDict, encoder: Encoder) -> dict[str, Any]:
    parts = encoder.fields(dict(value))
    metadata = {"rows": {name: part["metadata"]["rows"] for name, part in parts.items()}}
    return {
        "parts": parts,
        "type": "datasets:DatasetDict",
        "size": sum(part["size"] for part in parts.values()),
        "metadata": metadata,
    }


def _decode_dict(leaf: Mapping[str, Any], decoder: Decoder) -> datasets.DatasetDict:
    return datasets.DatasetDict({name: decoder.whole(part) for name, part in leaf["parts"].items()})


install(Codec("datasets", _encode, _decode, is_data=True), datasets.Dataset)
install(Codec("datasets-dict", _encode_dict, _decode_dict, is_data=True), datasets.DatasetDict)
