"""Sources of rows: every format and place gives the same rows, streamed or not; what is damaged says so."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet
import pytest
from tests.blobs import s3_server
from tests.llm.finetune.data import written_rows

from michelangelo import errors
from michelangelo.llm.finetune.config import SourceConfig
from michelangelo.llm.finetune.data import locations, opening, parsing, shards, tables
from michelangelo.llm.finetune.data.rows import Row

ROWS = written_rows.text_rows(40)
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def texts(source: SourceConfig, *, streaming: bool) -> list[str]:
    """The texts of all rows, in order."""
    config = written_rows.config_of(source, streaming=streaming)
    order = opening.open_sources([source], config, is_shuffled=False).make_order()
    found: list[Row] = []
    while rows := order.read(9):
        found += rows
    contents = [parsing.parse(row, config, "pretrain") for row in found]
    return [content.text for content in contents if isinstance(content, parsing.Text)]


def check(path: Any, expected: list[dict[str, Any]] = ROWS, **source: Any) -> None:
    for streaming in (False, True):
        found = texts(SourceConfig(path=str(path), **source), streaming=streaming)
        assert found == [row["text"] for row in expected]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("a.json", LINES.rstrip(b"\n")),
        ("a.ndjson", LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("a.jsonl.bz2", bz2.compress(LINES)),
        ("a.jsonl.xz", lzma.compress(LINES)),
        ("a.jsonl.zst", pa.compress(LINES, "zstd", asbytes=True)),
        ("a.txt", b"\n".join(row["text"].encode() for row in ROWS)),
        ("a.txt", b"\n \n".join(row["text"].encode() for row in ROWS) + b"\n\n"),
    ],
)
def test_file_of_lines_is_read(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name)


def test_parquet_is_read_by_row_groups(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{**row, "other": number} for number, row in enumerate(ROWS)])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    check(tmp_path / "a.parquet")
    shard = shards.shards_of(
        SourceConfig(path=str(tmp_path / "a.parquet")), written_rows.config_of("a"), streaming=True
    )[0]
    whole = list(shard.read())
    assert all(list(shard.read(position)) == whole[number + 1 :] for number, (_, position) in enumerate(whole))


def test_folders_and_patterns_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    written_rows.write(tmp_path / "1.jsonl", ROWS[:10])
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS[10:20]), tmp_path / "2.parquet")
    (tmp_path / "3.jsonl.gz").write_bytes(gzip.compress(b"".join(LINES.splitlines(keepends=True)[20:30])))
    written_rows.write(tmp_path / "deep" / "4.jsonl", ROWS[30:])
    for name in ("_SUCCESS", ".hidden.jsonl", "_temporary.parquet", "notes.pdf"):
        (tmp_path / name).write_bytes(b"no rows")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    check(tmp_path)
    check(tmp_path / "*.jsonl", ROWS[:10])
    check(tmp_path, ROWS[10:20], format="parquet")


def test_hugging_face_folder_is_read(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(str(tmp_path / "set"))
    check(tmp_path / "set")
    datasets.DatasetDict({"train": rows, "test": rows.select(range(5))}).save_to_disk(str(tmp_path / "sets"))
    check(tmp_path / "sets", ROWS[:5], split="test", format="hf")
    with pytest.raises(errors.DatasetError, match="no split other; it has train, test"):
        texts(SourceConfig(path=str(tmp_path / "sets"), split="other"), streaming=False)


def test_hugging_face_builder_is_read_in_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    written_rows.write(tmp_path / "set" / "train.jsonl", ROWS)
    check(tmp_path / "set", format="hf")


def test_memory_file_system_is_read() -> None:
    name = f"memory://{uuid.uuid4().hex}/a.jsonl"
    with fsspec.open(name, "wb") as file:
        file.write(LINES)
    check(name)
    check(name.replace("a.jsonl", "*.jsonl"))


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        yield server


def test_s3_is_read(s3: s3_server.S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = s3.bucket()
    query = f"endpoint_override=127.0.0.1:{s3.port}&scheme=http&region=us-east-1"
    arrow, _ = pyarrow.fs.FileSystem.from_uri(f"s3://{bucket}?{query}")
    with arrow.open_output_stream(f"{bucket}/rows/a.jsonl") as file:
        file.write(LINES)
    check(f"s3://{bucket}/rows/a.jsonl?{query}")
    check(f"s3://{bucket}/rows?{query}")
    check(f"s3://{bucket}/rows/*.jsonl?{query}")
    with pytest.raises(errors.DatasetError, match="there is no such file"):
        texts(SourceConfig(path=f"s3://{bucket}/none.jsonl?{query}"), streaming=True)


def test_lines_go_on_from_any_position(tmp_path: Path) -> None:
    for name, data in (("a.jsonl", LINES), ("a.txt", b"a\n\n b\n\n\nc"), ("a.jsonl.gz", gzip.compress(LINES))):
        (tmp_path / name).write_bytes(data)
        config = written_rows.config_of("a")
        shard = shards.shards_of(SourceConfig(path=str(tmp_path / name)), config, streaming=True)[0]
        whole = list(shard.read())
        assert all(list(shard.read(position)) == whole[number + 1 :] for number, (_, position) in enumerate(whole))
        table = tables.table_of(shard)
        assert table.rows(range(len(table))) == [row for row, _ in whole]


def test_line_that_is_too_long_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_LINE_BYTES", 100)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "' + b"b" * 1000 + b'"}\n{"text": "c"}\n')
    shard = shards.shards_of(SourceConfig(path=str(tmp_path / "a.jsonl")), written_rows.config_of("a"), streaming=True)[
        0
    ]
    streamed = [row for row, _ in shard.read()]
    assert [row.form for row in streamed] == ["json", "damaged", "json"]
    assert tables.table_of(shard).rows([0, 1, 2]) == streamed


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(LINES)[:-20]),
        ("a.jsonl.gz", LINES),
        ("a.jsonl.xz", lzma.compress(LINES)[:-30]),
        ("a.jsonl.bz2", LINES),
        ("a.jsonl.zst", LINES),
        ("a.parquet", LINES),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for streaming in (False, True):
        with pytest.raises(errors.DatasetError, match=rf"{name} cannot be read"):
            texts(SourceConfig(path=str(tmp_path / name)), streaming=streaming)


def test_source_that_is_not_there_says_what_to_check(tmp_path: Path) -> None:
    cases = {
        str(tmp_path / "none.jsonl"): "there is no such file; check data.train",
        str(tmp_path / "*.jsonl"): "there is no such file",
        str(tmp_path): "must hold files of known names",
        "memory://none/of/it.jsonl": "there is no such file",
        "abfs://container/a.jsonl": "pip install adlfs",
        "nonsense://a": "cannot be reached|not known",
    }
    for path, said in cases.items():
        with pytest.raises(errors.DatasetError, match=said):
            locations.files_of(SourceConfig(path=path))


def test_file_that_says_nothing_of_its_format_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "rows.dat").write_bytes(LINES)
    with pytest.raises(errors.DatasetError, match="say data"):
        texts(SourceConfig(path=str(tmp_path / "rows.dat")), streaming=False)
    check(tmp_path / "rows.dat", format="jsonl")


def test_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(errors.DatasetError, match="all of them are empty"):
        texts(SourceConfig(path=str(tmp_path / "a.jsonl")), streaming=False)


def test_table_without_an_expected_column_lists_its_columns(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist([{"body": "a", "title": "b"}]), tmp_path / "a.parquet")
    for streaming in (False, True):
        with pytest.raises(errors.DatasetError, match="has the columns body, title"):
            texts(SourceConfig(path=str(tmp_path / "a.parquet")), streaming=streaming)
