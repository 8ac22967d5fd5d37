"""Codecs of tables: pandas and pyarrow, as Parquet. Tables are data; pandas' single times are values.

Parquet, because it does not store what is under a null, which makes equal tables equal bytes. A table is written piece
by piece, and read without a copy of the file in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from michelangelo.uniflow.codecs import tables
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

try:
    import pandas as pd
except ImportError:  # pyarrow without pandas is a usual installation
    pd = None  # type: ignore[assignment]

__all__ = ["arrow_pieces", "arrow_schema", "to_pandas"]

_SERIES_NAME = "value"
_SLICE_BYTES: Final = 32 << 20
"""About so much of a pandas table is converted at a time."""


def arrow_schema(frame: Any) -> pa.Schema:
    """The schema of a pandas table in Arrow. Unencodable when it has none."""
    try:
        if len(frame) <= _slice_rows(frame):
            return _arrow(frame).schema
        return pa.Schema.from_pandas(frame, preserve_index=_preserve_index(frame))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _unfit(error) from error


def arrow_pieces(frame: Any, schema: pa.Schema) -> Iterator[pa.Table]:
    """A pandas table in Arrow, some rows at a time, so that no second copy of it is in memory."""
    step = _slice_rows(frame)
    for start in range(0, max(1, len(frame)), step):
        part = _arrow(frame.iloc[start : start + step])
        try:
            yield (
                part.cast(schema)
                if part.schema.types != schema.types
                else part.replace_schema_metadata(schema.metadata)
            )
        except pa.ArrowException as error:
            raise _unfit(error) from error


def to_pandas(table: pa.Table) -> Any:
    """A pandas table of an Arrow one that nobody else holds: its columns are freed as they are converted."""
    return table.to_pandas(self_destruct=True)


def _encode_table(value: pa.Table, encoder: Encoder) -> dict[str, Any]:
    tables.check_schema(value.schema)
    leaf = tables.write(value.schema, [value], encoder)
    return {**leaf, "type": "pyarrow:Table", "metadata": tables.shape(value.num_rows, value.column_names)}


def _decode_table(leaf: Mapping[str, Any], decoder: Decoder) -> pa.Table:
    return tables.read(leaf["blob"], decoder)


def _encode_frame(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf = _write(value, encoder)
    metadata = tables.shape(len(value), value.columns)
    return {**leaf, **_frequency(value.index), "type": "pandas:DataFrame", "metadata": metadata}


def _decode_frame(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    frame = to_pandas(tables.read(leaf["blob"], decoder))
    if "frequency" in leaf:
        frame.index.freq = leaf["frequency"]
    return frame


def _encode_series(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf = _write(value.to_frame(name=_SERIES_NAME), encoder)
    metadata = {"rows": len(value), "name": str(value.name), "dtype": str(value.dtype)}
    leaf |= {"name": encoder.child(value.name), **_frequency(value.index)}
    return {**leaf, "type": "pandas:Series", "metadata": metadata}


def _decode_series(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    series = _decode_frame(leaf, decoder)[_SERIES_NAME]
    series.name = decoder.child(leaf["name"])
    return series


def _encode_index(value: Any, encoder: Encoder) -> dict[str, Any]:
    # With a column, because Parquet does not count the rows of a table that has none.
    leaf = _write(pd.DataFrame({_SERIES_NAME: False}, index=value), encoder)
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


def _write(frame: Any, encoder: Encoder) -> dict[str, Any]:
    schema = arrow_schema(frame)
    return tables.write(schema, arrow_pieces(frame, schema), encoder)


def _arrow(frame: Any) -> pa.Table:
    try:
        return pa.Table.from_pandas(frame, preserve_index=_preserve_index(frame))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _unfit(error) from error


def _preserve_index(frame: Any) -> bool | None:
    return None if len(frame.columns) else True


def _unfit(error: Exception) -> Unencodable:
    return Unencodable(f"pandas table that Arrow cannot hold: {error}; convert the column, e.g. with astype(str)")


def _slice_rows(frame: Any) -> int:
    return max(1024, _SLICE_BYTES // (8 * (1 + len(frame.columns))))


install(Codec("arrow", _encode_table, _decode_table, is_data=True), pa.Table)
if pd is not None:
    install(Codec("pandas", _encode_frame, _decode_frame, is_data=True), pd.DataFrame)
    install(Codec("pandas-series", _encode_series, _decode_series, is_data=True), pd.Series)
    install(Codec("pandas-index", _encode_index, _decode_index, is_data=True), pd.Index, subclasses=True)
    install(
        Codec("pandas-scalar", _encode_scalar, _decode_scalar), pd.Timestamp, pd.Timedelta, type(pd.NaT), type(pd.NA)
    )
