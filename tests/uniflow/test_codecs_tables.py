"""Tables of polars and Hugging Face, and how tables are cut into pieces: by their rows, whatever their chunks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from michelangelo.blobs.local import LocalBlobStore
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.errors import CodecError
from michelangelo.uniflow import codecs
from michelangelo.uniflow.codecs import tables
from michelangelo.uniflow.ref import Ref


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def round_trip(value: Any, blobs: LocalBlobStore | MemoryBlobStore) -> Any:
    tree = codecs.encode(value, blobs)
    found = codecs.decode(tree, blobs)
    assert codecs.encode(found, blobs) == tree
    return found


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.none() | st.text(max_size=30), max_size=1200),
    cuts=st.lists(st.integers(0, 1200), max_size=6),
    piece_bytes=st.sampled_from([1, 500, 3000, 1 << 20]),
)
def test_pieces_depend_on_the_rows_alone(texts: list[str | None], cuts: list[int], piece_bytes: int) -> None:
    table = pa.table({"n": pa.array(range(len(texts)), pa.int64()), "t": pa.array(texts, pa.string())})
    places = sorted({0, *(min(cut, len(texts)) for cut in cuts), len(texts)})
    chunks = [table.slice(start, end - start) for start, end in itertools.pairwise(places)]
    pieces = list(tables.pieces([table], piece_bytes=piece_bytes))
    assert [piece.num_rows for piece in pieces] == [
        piece.num_rows for piece in tables.pieces(chunks, piece_bytes=piece_bytes)
    ]
    assert all(piece.num_rows % 128 == 0 for piece in pieces[:-1])
    assert pa.concat_tables([table.slice(0, 0), *pieces]).equals(table)


def test_equal_tables_in_other_chunks_are_equal_bytes(blobs: LocalBlobStore) -> None:
    table = pa.table({"a": range(5000), "t": [str(number) for number in range(5000)]})
    chunked = pa.concat_tables([table.slice(0, 7), table.slice(7, 4000), table.slice(4007)])
    assert codecs.encode(chunked, blobs) == codecs.encode(table, blobs)


def test_large_frame_is_written_by_row_groups(blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("michelangelo.uniflow.codecs.frames._SLICE_BYTES", 1)
    monkeypatch.setattr("michelangelo.uniflow.codecs.tables.pieces.__kwdefaults__", {"piece_bytes": 20_000})
    frame = pd.DataFrame(
        {
            "late": [None] * 3000 + ["text"] * 3000,  # what a slice of the first rows would take for nothing
            "kind": pd.Categorical(["u", "v", "w"] * 2000),
            "number": np.arange(6000) / 3,
        },
        index=pd.Index(range(6000, 0, -1), name="id"),
    )
    tree = codecs.encode(frame, blobs)
    assert pq.ParquetFile(blobs.path(tree["blob"])).num_row_groups > 5
    pd.testing.assert_frame_equal(codecs.decode(tree, blobs), frame)


POLARS = pl.DataFrame(
    {
        "number": [1, None],
        "category": pl.Series(["x", "y"], dtype=pl.Categorical),
        "enum": pl.Series(["x", "y"], dtype=pl.Enum(["y", "x"])),
        "list": [[1], [2, 3]],
        "struct": [{"a": 1}, {"a": None}],
        "duration": pl.Series([1, 2], dtype=pl.Duration("ms")),
        "nothing": [None, None],
        "decimal": pl.Series(["1.23", "2.5"]).cast(pl.Decimal(10, 2)),
        "array": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2)),
        "time": pl.Series([1, 2], dtype=pl.Time),
        "bytes": [b"x", None],
    }
)


@pytest.mark.parametrize("frame", [POLARS, pl.DataFrame(), POLARS.clear()], ids=["all", "nothing", "no-rows"])
def test_polars_frames_round_trip(blobs: LocalBlobStore, frame: pl.DataFrame) -> None:
    found = round_trip(frame, blobs)
    assert_frame_equal(found, frame)
    assert found.schema == frame.schema


@settings(deadline=None, max_examples=40)
@given(
    columns=st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.sampled_from([pl.Int8, pl.UInt64, pl.Float32, pl.String, pl.Boolean, pl.Date]),
        min_size=1,
        max_size=4,
    ),
    seed=st.lists(st.none() | st.integers(0, 100), max_size=20),
)
def test_polars_frames_of_any_columns_round_trip(columns: dict[str, Any], seed: list[int | None]) -> None:
    numbers = pl.Series("s", seed, dtype=pl.Int64)
    frame = pl.DataFrame({name: numbers.cast(pl.Int32).cast(kind) for name, kind in columns.items()})
    assert_frame_equal(round_trip(frame, MemoryBlobStore()), frame)


def test_polars_series_keep_their_names(blobs: LocalBlobStore) -> None:
    found = round_trip(pl.Series("größe", [1.5, None]), blobs)
    assert (found.name, found.to_list()) == ("größe", [1.5, None])


DATASET = datasets.Dataset.from_dict(
    {"a": range(2500), "text": ["x"] * 2500, "label": [0, 1] * 1250},
    features=datasets.Features(
        {"a": datasets.Value("int16"), "text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])}
    ),
)


def test_hugging_face_datasets_keep_features_and_rows(blobs: LocalBlobStore) -> None:
    found = round_trip(DATASET, blobs)
    assert found.features == DATASET.features
    assert found[[0, 2499]] == DATASET[[0, 2499]]
    assert found.cache_files  # a memory map of a file, not a table in memory


def test_hugging_face_datasets_keep_order_and_format(blobs: LocalBlobStore) -> None:
    chosen = DATASET.shuffle(seed=1).select(range(10)).with_format("numpy", columns=["a"])
    found = round_trip(chosen, blobs)
    assert found.format == chosen.format
    assert found["a"][:].tolist() == chosen["a"][:].tolist()


def test_dataset_dicts_round_trip_and_are_references_in_workflow_code(blobs: LocalBlobStore) -> None:
    value = datasets.DatasetDict(train=DATASET, test=DATASET.select([]))
    found = round_trip(value, blobs)
    assert {name: part.num_rows for name, part in found.items()} == {"train": 2500, "test": 0}
    assert found["test"].features == DATASET.features
    ref = codecs.decode(codecs.encode(value, blobs), blobs, data=False)
    assert isinstance(ref, Ref)
    assert ref.metadata == {"rows": {"train": 2500, "test": 0}}
    assert ref.load()["train"].num_rows == 2500


def test_files_that_a_dataset_points_to_go_with_it(blobs: LocalBlobStore, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "x.png")
    value = datasets.Dataset.from_dict({"i": [str(tmp_path / "x.png")]}).cast_column("i", datasets.Image())
    tree = codecs.encode(value, blobs)
    (tmp_path / "x.png").unlink()
    assert codecs.decode(tree, blobs)[0]["i"].getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (POLARS.lazy(), r"return frame\.collect\(\)"),
        (pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}), "column 'o' holds Python objects"),
        (DATASET.to_iterable_dataset(), "has no end to store"),
        (DATASET.with_transform(lambda batch: batch), "a transform of its own"),
        (pa.RecordBatchReader.from_batches(pa.schema([]), []), "read only once"),
    ],
    ids=["lazy", "objects", "iterable", "transform", "reader"],
)
def test_tables_that_cannot_be_carried_say_what_to_do(blobs: LocalBlobStore, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=rf"value\['k'\].*{message}"):
        codecs.encode({"first": np.arange(3), "k": value}, blobs)
    assert list(blobs.iterate()) == []
