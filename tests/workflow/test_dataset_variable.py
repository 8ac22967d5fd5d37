"""DatasetVariable: saved as one kind of table, loaded as another, and light until somebody asks."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from michelangelo.blobs.local import LocalBlobStore
from michelangelo.errors import CodecError, IntegrityError, StorageError
from michelangelo.uniflow import codecs
from michelangelo.workflow.variables import DatasetVariable

FRAME = pd.DataFrame({"a": [1, 2, 3], "t": ["x", None, "z"], "when": pd.date_range("2020", periods=3, unit="us")})


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def travel(variable: DatasetVariable, blobs: LocalBlobStore) -> DatasetVariable:
    """The variable as a workflow gets it, and then the next task."""
    tree = codecs.encode(variable, blobs)
    passed_on = codecs.encode(codecs.decode(tree, blobs, data=False), blobs)
    assert passed_on == tree
    found: DatasetVariable = codecs.decode(passed_on, blobs)
    return found


def test_pandas_value_travels_without_being_saved(blobs: LocalBlobStore) -> None:
    variable = DatasetVariable.create(FRAME)
    variable.metadata = {"source": ("a", 1)}
    found = travel(variable, blobs)
    assert found.metadata == {"source": ("a", 1)}
    pd.testing.assert_frame_equal(found.load_pandas_dataframe(), FRAME)
    assert found.value is found.load_pandas_dataframe()


def test_pandas_value_travels_after_being_saved(blobs: LocalBlobStore) -> None:
    variable = DatasetVariable.create(FRAME)
    variable.save_pandas_dataframe()
    variable.save()
    assert pq.read_table(os.path.join(variable.path, "part-00000.parquet")).num_rows == 3
    pd.testing.assert_frame_equal(travel(variable, blobs).value, FRAME)


def test_variable_of_a_path_travels(blobs: LocalBlobStore, tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "x.parquet")
    found = travel(DatasetVariable(path=str(tmp_path)), blobs)
    pd.testing.assert_frame_equal(found.value, FRAME)


def test_table_without_rows_keeps_its_columns(blobs: LocalBlobStore) -> None:
    for save in (False, True):
        variable = DatasetVariable.create(FRAME[:0])
        if save:
            variable.save()
        assert list(travel(variable, blobs).value.columns) == ["a", "t", "when"]


def test_path_of_what_came_is_a_private_copy(blobs: LocalBlobStore) -> None:
    found = travel(DatasetVariable.create(FRAME), blobs)
    part = Path(found.path, "part-00000.parquet")
    part.write_bytes(b"")
    pd.testing.assert_frame_equal(found.value, FRAME)


def test_times_of_nanoseconds_are_kept_where_they_count(blobs: LocalBlobStore) -> None:
    whole = pd.DataFrame({"t": pd.to_datetime(["2020-01-01"]).astype("datetime64[ns]")})
    fine = pd.DataFrame({"t": pd.to_datetime(["2020-01-01 00:00:00.000000001"])})
    for frame, unit in ((whole, "us"), (fine, "ns")):
        tree = codecs.encode(DatasetVariable.create(frame), blobs)
        assert pq.read_schema(blobs.path(tree["blobs"][0])).field("t").type == pa.timestamp(unit)


def test_wrong_use_is_refused(blobs: LocalBlobStore) -> None:
    value: Any = [1, 2]
    with pytest.raises(TypeError, match="pandas DataFrame, a Ray Dataset or a Spark DataFrame, not a list"):
        DatasetVariable.create(value)
    with pytest.raises(TypeError, match=r"save it with save_pandas_dataframe\(\)"):
        DatasetVariable.create(FRAME).save_ray_dataset()
    with pytest.raises(ValueError, match=r"make it with DatasetVariable\.create"):
        _ = DatasetVariable().value
    with pytest.raises(ValueError, match=r"make it with DatasetVariable\.create"):
        DatasetVariable().save()
    with pytest.raises(CodecError, match=r"value\['k'\].*DatasetVariable\.create"):
        codecs.encode({"k": DatasetVariable()}, blobs)


def test_damaged_and_lost_blobs_are_named(blobs: LocalBlobStore) -> None:
    tree = codecs.encode(DatasetVariable.create(FRAME), blobs)
    found = codecs.decode(tree, blobs)
    path = Path(blobs.path(tree["blobs"][0]))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=tree["blobs"][0]):
        found.load_pandas_dataframe()
    path.unlink()
    with pytest.raises(StorageError, match="of a DatasetVariable is gone"):
        codecs.decode(tree, blobs)


SCRIPT = """
import sys
from michelangelo.workflow.variables import DatasetVariable
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.uniflow import codecs
leaf = {"$codec": "dataset-variable", "blobs": [], "user": None, "io": None, "size": 0}
codecs.encode(codecs.decode(leaf, MemoryBlobStore()), MemoryBlobStore())
print(sorted({"pandas", "pyarrow", "numpy", "ray", "pyspark"} & sys.modules.keys()))
"""


def test_variable_that_nobody_looks_into_loads_no_library() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture(scope="module")
def engines() -> Iterator[None]:
    """A Ray and a Spark on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from pyspark.sql import SparkSession

        ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
        yield
        spark.stop()
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("save", [False, True], ids=["encoded", "saved"])
def test_one_variable_is_pandas_ray_and_spark(blobs: LocalBlobStore, save: bool) -> None:
    variable = travel(DatasetVariable.create(FRAME), blobs)
    rows = variable.load_ray_dataset()
    doubled = DatasetVariable.create(rows.map(lambda row: {**row, "double": 2 * row["a"]}))
    if save:
        doubled.save_ray_dataset()
    table = travel(doubled, blobs).load_spark_dataframe()
    assert [row["double"] for row in table.orderBy("a").collect()] == [2, 4, 6]
    chosen = DatasetVariable.create(table.where("a > 1"))
    if save:
        chosen.save_spark_dataframe()
    last = travel(chosen, blobs)
    assert {row["t"] for row in last.load_ray_dataset().take_all()} == {None, "z"}
    assert last.load_pandas_dataframe()["double"].sum() == 10
    assert travel(last, blobs).value.count() == 2  # Spark's, for its session is active


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("engines")
def test_ray_dataset_streams_through_blobs_in_order(blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.data

    monkeypatch.setattr("michelangelo.uniflow.codecs.tables.pieces.__kwdefaults__", {"piece_bytes": 2000})
    tree = codecs.encode(ray.data.range(2000, override_num_blocks=7), blobs)
    assert tree == codecs.encode(ray.data.range(2000, override_num_blocks=3), blobs)
    assert len(tree["blobs"]) == 8
    ref = codecs.decode(tree, blobs, data=False)
    assert (ref.type, ref.metadata["rows"]) == ("ray.data:Dataset", 2000)
    found = ref.load()
    assert found.count() == 2000
    assert sorted(row["id"] for row in found.take_all()) == list(range(2000))
    path = Path(blobs.path(tree["blobs"][3]))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Exception, match="is damaged"):
        codecs.decode(tree, blobs).materialize()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("engines")
def test_ray_dataset_that_cannot_be_carried_leaves_nothing(blobs: LocalBlobStore) -> None:
    import ray.data

    with pytest.raises(CodecError, match=r"value\['k'\]: column 'a' holds Python objects"):
        codecs.encode({"k": ray.data.from_items([{"a": object()}])}, blobs)

    def fail(row: Any) -> Any:
        raise ValueError("no such row")

    with pytest.raises(CodecError, match=r"value\['k'\]: codec ray-dataset failed"):
        codecs.encode({"k": ray.data.range(5).map(fail)}, blobs)
    assert list(blobs.iterate()) == []
    empty = ray.data.range(5).filter(lambda row: False)
    found = codecs.decode(codecs.encode(empty, blobs), blobs)
    assert (found.count(), found.columns()) == (0, ["id"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("engines")
def test_spark_table_round_trips(blobs: LocalBlobStore) -> None:
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    assert session is not None
    table = session.range(100).selectExpr("id", "cast(id as string) text", "array(id) list")
    tree = codecs.encode({"k": table}, blobs)
    found = codecs.decode(tree, blobs)["k"]
    assert found.collect() == table.collect()
    assert tree["k"]["metadata"] == {"rows": 100, "columns": ["id", "text", "list"], "columnCount": 3}
