"""Codecs of tables: pandas and pyarrow, as Parquet. Tables are data; pandas' single times are values.

Parquet, because it does not store what is under a null, which makes equal tables equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from michelangelo.errors import CodecError
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

try:
    import pandas as pd
except ImportError:  # pyarrow without pandas is a usual installation
    pd = None  # type: ignore[assignment]

__all__: list[str] = []

_SERIES_NAME = "value"


def _encode_table(value: pa.Table, encoder: Encoder) -> dict[str, Any]:
    leaf = _write(value, encoder)
    return {**leaf, "type": "pyarrow:Table", "metadata": _shape(value.num_rows, value.column_names)}


def _decode_table(leaf: Mapping[str, Any], decoder: Decoder) -> pa.Table:
    return _read(leaf, decoder)


def _encode_frame(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf = _write(_arrow(value), encoder)
    metadata = _shape(len(value), value.columns)
    return {**leaf, **_frequency(value.index), "type": "pandas:DataFrame", "metadata": metadata}


def _decode_frame(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    frame = _read(leaf, decoder).to_pandas()
    if "frequency" in leaf:
        frame.index.freq = leaf["frequency"]
    return frame


def _encode_series(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf = _write(_arrow(value.to_frame(name=_SERIES_NAME)), encoder)
    metadata = {"rows": len(value), "name": str(value.name), "dtype": str(value.dtype)}
    leaf |= {"name": encoder.child(value.name), **_frequency(value.index)}
    return {**leaf, "type": "pandas:Series", "metadata": metadata}


def _decode_series(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    series = _decode_frame(leaf, decoder)[_SERIES_NAME]
    series.name = decoder.child(leaf["name"])
    return series


def _encode_index(value: Any, encoder: Encoder) -> dict[str, Any]:
    # With a column, because Parquet does not count the rows of a table that has none.
    leaf = _write(_arrow(pd.DataFrame({_SERIES_NAME: False}, index=value)), encoder)
    return {**leaf, **_frequency(value), "type": "pandas:Index", "metadata": {"rows": len(value)}}


def _decode_index(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    return _decode_frame(leaf, decoder).index


def _encode_scalar(value: Any, encoder: Encoder) -> dict[str, Any]:
    if value is pd.NaT or value is pd.NA:
        return {"kind": "NaT" if value is pd.NaT else "NA"}
    kind = type(value).__name__
    leaf: dict[str, Any] = {"kind": kind, "value": int(value.asm8.view("i8")), "unit": value.unit}
    if kind == "Timestamp" and value.tzinfo is not None:
        leaf["zone"] = str(value.tzinfo)
    return leaf


def _decode_scalar(leaf: Mapping[str, Any], _: Decoder) -> Any:
    kind = leaf["kind"]
    if kind in ("NaT", "NA"):
        return getattr(pd, kind)
    if kind == "Timedelta":
        return pd.Timedelta(np.timedelta64(leaf["value"], leaf["unit"]))
    moment = pd.Timestamp(np.datetime64(leaf["value"], leaf["unit"]))
    return moment.tz_localize("UTC").tz_convert(leaf["zone"]) if "zone" in leaf else moment


def _frequency(index: Any) -> dict[str, str]:
    """What Arrow does not keep of an index of times."""
    frequency = getattr(index, "freqstr", None)
    return {} if frequency is None else {"frequency": frequency}


def _arrow(frame: Any) -> pa.Table:
    try:
        return pa.Table.from_pandas(frame, preserve_index=None if len(frame.columns) else True)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise Unencodable(
            f"pandas table that Arrow cannot hold: {error}; convert the column, e.g. with astype(str)"
        ) from error


def _write(table: pa.Table, encoder: Encoder) -> dict[str, Any]:
    def write(file: BinaryIO) -> None:
        pq.write_table(table, file, compression="zstd")

    try:
        return encoder.stream(write)
    except pa.ArrowException as error:
        raise Unencodable(f"table that Parquet cannot hold: {error}; convert the column") from error


def _read(leaf: Mapping[str, Any], decoder: Decoder) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(decoder.bytes(leaf)))
    except pa.ArrowException as error:
        raise CodecError(f"blob {leaf['blob']} is no Parquet table: {error}") from error


def _shape(rows: int, columns: Any) -> dict[str, Any]:
    """For people; a table with very many columns names the first hundred."""
    return {"rows": rows, "columns": [str(column) for column in columns[:100]], "columnCount": len(columns)}


install(Codec("arrow", _encode_table, _decode_table, is_data=True), pa.Table)
if pd is not None:
    install(Codec("pandas", _encode_frame, _decode_frame, is_data=True), pd.DataFrame)
    install(Codec("pandas-series", _encode_series, _decode_series, is_data=True), pd.Series)
    install(Codec("pandas-index", _encode_index, _decode_index, is_data=True), pd.Index, subclasses=True)
    install(
        Codec("pandas-scalar", _encode_scalar, _decode_scalar), pd.Timestamp, pd.Timedelta, type(pd.NaT), type(pd.NA)
    )
