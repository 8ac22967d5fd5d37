"""Codecs of tables: pandas and pyarrow, as Parquet. Tables are data; pandas' single times are values.

Parquet, because it does not store what is under a null, which makes equal tables equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

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
    return {**leaf, "type": "pandas:DataFrame", "metadata": _shape(len(value), value.columns)}


def _decode_frame(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    return _read(leaf, decoder).to_pandas()


def _encode_series(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf = _write(_arrow(value.to_frame(name=_SERIES_NAME)), encoder)
    metadata = {"rows": len(value), "name": str(value.name), "dtype": str(value.dtype)}
    return {**leaf, "name": encoder.child(value.name), "type": "pandas:Series", "metadata": metadata}


def _decode_series(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    series = _read(leaf, decoder).to_pandas()[_SERIES_NAME]
    series.name = decoder.child(leaf["name"])
    return series


def _encode_index(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf = _write(_arrow(pd.DataFrame(index=value)), encoder)
    return {**leaf, "type": "pandas:Index", "metadata": {"rows": len(value)}}


def _decode_index(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    return _read(leaf, decoder).to_pandas().index


def _encode_scalar(value: Any, encoder: Encoder) -> dict[str, Any]:
    if value is pd.NaT or value is pd.NA:
        return {"kind": "NaT" if value is pd.NaT else "NA"}
    kind = type(value).__name__
    leaf: dict[str, Any] = {"kind": kind, "value": int(value.value), "unit": value.unit}
    if kind == "Timestamp" and value.tzinfo is not None:
        leaf["value"] = int(value.tz_convert("UTC").value)
        leaf["zone"] = str(value.tzinfo)
    # `value` counts nanoseconds whatever the unit, so nothing is lost here
    return leaf


def _decode_scalar(leaf: Mapping[str, Any], _: Decoder) -> Any:
    kind = leaf["kind"]
    if kind in ("NaT", "NA"):
        return getattr(pd, kind)
    if kind == "Timedelta":
        return pd.Timedelta(leaf["value"], unit="ns").as_unit(leaf["unit"])
    if "zone" in leaf:
        return pd.Timestamp(leaf["value"], unit="ns", tz="UTC").tz_convert(leaf["zone"]).as_unit(leaf["unit"])
    return pd.Timestamp(leaf["value"], unit="ns").as_unit(leaf["unit"])


def _arrow(frame: Any) -> pa.Table:
    try:
        return pa.Table.from_pandas(frame)
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
