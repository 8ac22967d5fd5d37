"""Codecs of polars: DataFrame and Series, as Parquet. They are data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from michelangelo.errors import CodecError
from michelangelo.uniflow.codecs import tables
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []

_SERIES_NAME = "value"
_ROW_GROUP_ROWS = 1 << 18


def _encode_frame(value: pl.DataFrame, encoder: Encoder) -> dict[str, Any]:
    metadata = tables.shape(value.height, value.columns)
    return {**_write(value, encoder), "type": "polars:DataFrame", "metadata": metadata}


def _encode_series(value: pl.Series, encoder: Encoder) -> dict[str, Any]:
    leaf = _write(value.alias(_SERIES_NAME).to_frame(), encoder)
    metadata = {"rows": len(value), "name": value.name, "dtype": str(value.dtype)}
    return {**leaf, "type": "polars:Series", "metadata": metadata, "name": encoder.child(value.name)}


def _write(frame: pl.DataFrame, encoder: Encoder) -> dict[str, Any]:
    objects = [name for name, kind in frame.schema.items() if kind == pl.Object]
    if objects:
        raise Unencodable(f"column {objects[0]!r} holds Python objects (polars Object); give it a dtype of its own")
    # Enum and Categorical columns keep their dtype by polars' own schema; Parquet itself knows neither.
    leaf = encoder.stream(
        lambda file: frame.rechunk().write_parquet(file, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
    )
    return {**leaf, "rows": frame.height}


def _decode_frame(leaf: Mapping[str, Any], decoder: Decoder) -> pl.DataFrame:
    with decoder.path(leaf["blob"]) as path:
        try:
            frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
        except pl.exceptions.PolarsError as error:
            raise CodecError(f"blob {leaf['blob']} is no table of polars: {error}") from error
    return frame


def _decode_series(leaf: Mapping[str, Any], decoder: Decoder) -> pl.Series:
    return _decode_frame(leaf, decoder).to_series().alias(decoder.child(leaf["name"]))


install(Codec("polars", _encode_frame, _decode_frame, is_data=True), pl.DataFrame)
install(Codec("polars-series", _encode_series, _decode_series, is_data=True), pl.Series)
