"""Shards: every row in exactly one, in order; digests that tell any change; quantiles that add up."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llm.scorer import scoring_jobs

from michelangelo import errors
from michelangelo.llm.scorer import sharding, sources
from michelangelo.llm.scorer.config import InputConfig
from michelangelo.llm.scorer.replicas.open_shard import Order, RowReader
from michelangelo.llm.scorer.sharding import Division
from michelangelo.llm.scorer.sketch import ACCURACY, Sketch

FILES = st.lists(st.lists(st.sampled_from(["{}", '{"a": 1}', "torn", "", "  "]), max_size=30), min_size=1, max_size=4)


def read_back(division: Division) -> list[str]:
    """The places of all rows, read shard by shard as replicas do."""
    reader = RowReader()
    places = []
    for shard in division.shards:
        facts = division.files[shard.file]
        before = sum(one.num_rows for one in division.files[: shard.file])
        rows = list(reader.read(Order(shard, facts.file, shard.first - before)))
        assert len(rows) == shard.num_rows
        total = sum(sharding.row_sum(row.digest, shard.first - before + n) for n, row in enumerate(rows))
        assert not shard.digest or int(shard.digest, 16) == total % (1 << 128)
        places += [row.place for row in rows]
    return places


@settings(max_examples=50)
@given(files=FILES, shard_rows=st.integers(0, 7), replicas=st.integers(1, 3), limit=st.integers(0, 20))
def test_shards_hold_each_row_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], shard_rows: int, replicas: int, limit: int
) -> None:
    folder = tmp_path_factory.mktemp("input")
    expected = []
    for number, lines in enumerate(files):
        packed = number % 2
        path = folder / f"{number}.jsonl{'.gz' if packed else ''}"
        text = "".join(f"{line}\n" for line in lines).encode()
        path.write_bytes(gzip.compress(text) if packed else text)
        expected += [f"{path}:{line + 1}" for line, row in enumerate(lines) if row.strip()]
    expected = expected[: limit or None]
    config = InputConfig(path=(str(folder),), limit=limit)
    if not expected:
        with pytest.raises(errors.DatasetError):
            sharding.divide(config, num_replicas=replicas, shard_rows=shard_rows)
        return
    division = sharding.divide(config, num_replicas=replicas, shard_rows=shard_rows)
    assert read_back(division) == expected
    assert division.num_rows == len(expected)
    assert [shard.number for shard in division.shards] == list(range(len(division.shards)))
    assert all(shard.num_rows <= (shard_rows or sharding.MAX_SHARD_ROWS) for shard in division.shards)
    starts = list(itertools.accumulate([shard.num_rows for shard in division.shards], initial=0))
    assert [shard.first for shard in division.shards] == starts[:-1]


def test_parquet_shards_begin_within_row_groups(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"prompt": f"p{number}"} for number in range(23)])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    division = sharding.divide(InputConfig(path=(str(tmp_path),)), num_replicas=1, shard_rows=4)
    assert [shard.num_rows for shard in division.shards] == [4, 4, 4, 4, 4, 3]
    assert read_back(division) == [f"{tmp_path}/a.parquet:{number + 1}" for number in range(23)]


def test_shards_stay_few_however_many_rows_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "_MAX_GRANULES", 16)
    path = scoring_jobs.write_rows(tmp_path / "in.jsonl", [{"a": n} for n in range(1000)])
    division = sharding.divide(InputConfig(path=(str(path),)), num_replicas=1)
    assert len(division.shards) <= 16
    assert len(read_back(division)) == 1000


@pytest.mark.parametrize("change", ["swapped", "changed", "longer"])
def test_changed_lines_have_another_digest(tmp_path: Path, change: str) -> None:
    rows = scoring_jobs.rows_of(9)
    path = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    config = InputConfig(path=(str(path),))
    before = sharding.divide(config, num_replicas=1).files[0]
    rows = {
        "swapped": [rows[1], rows[0], *rows[2:]],
        "changed": [{**rows[0], "prompt": "Other"}, *rows[1:]],
        "longer": [*rows, rows[0]],
    }[change]
    scoring_jobs.write_rows(path, rows)
    now = sharding.facts_of(sources.files_of(config)[0], 1 << 40)
    assert now != (before.num_rows, before.digest)


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(errors.DatasetError) as caught:
        sources.files_of(InputConfig(path=(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))))
    assert "a.jsonl: there is no such file" in caught.value.message
    assert "b.jsonl: there is no such file" in caught.value.message


def test_cut_off_archive_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    data = gzip.compress(b'{"prompt": "a"}\n' * 1000)
    (tmp_path / "in.jsonl.gz").write_bytes(data[:-20])
    with pytest.raises(errors.DatasetError, match="damaged or cut off"):
        sharding.divide(InputConfig(path=(str(tmp_path / "in.jsonl.gz"),)), num_replicas=1)


@given(
    values=st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=200),
    share=st.floats(0.01, 1.0),
    cut=st.integers(0, 200),
)
def test_quantiles_are_within_the_promised_accuracy(values: list[float], share: float, cut: int) -> None:
    one, other = Sketch(), Sketch()
    for place, value in enumerate(values):
        (one if place < cut else other).add(value)
    merged = Sketch.from_json(one.merge(other).to_json())
    exact = sorted(values)[max(0, -(-share * len(values) // 1).__int__() - 1)]
    found = merged.quantile(share)
    assert found is not None
    assert abs(found - exact) <= 1.001 * ACCURACY * exact
    assert merged.mean == pytest.approx(sum(values) / len(values))
