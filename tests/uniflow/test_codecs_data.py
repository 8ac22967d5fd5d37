"""Data: arrays, tables, files. Round trips, equal bytes for equal values, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from michelangelo.blobs.local import LocalBlobStore
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.errors import CodecError, IntegrityError, StorageError
from michelangelo.uniflow import codecs, task_context
from michelangelo.uniflow.files import Directory, File
from michelangelo.uniflow.ref import Ref


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


@settings(deadline=None, max_examples=60)
@given(
    array=arrays.arrays(
        dtype=st.one_of(arrays.scalar_dtypes(), arrays.array_dtypes(max_size=3)),
        shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_arrays_round_trip(array: np.ndarray[Any, Any]) -> None:
    blobs = MemoryBlobStore()
    tree = codecs.encode(array, blobs)
    found = codecs.decode(tree, blobs)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()
    assert codecs.encode(found, blobs) == tree


@settings(deadline=None, max_examples=60)
@given(array=arrays.arrays(dtype=arrays.scalar_dtypes(), shape=1))
def test_array_scalars_are_values(array: np.ndarray[Any, Any]) -> None:
    blobs = MemoryBlobStore()
    found = codecs.decode(codecs.encode(array[0], blobs), blobs, data=False)
    assert type(found) is type(array[0])
    assert found.tobytes() == array[0].tobytes()


def test_array_order_and_views_do_not_matter_to_the_value(blobs: LocalBlobStore) -> None:
    for array in (
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.arange(20)[::3],
        np.broadcast_to(np.arange(3), (2, 3)),
    ):
        assert np.array_equal(codecs.decode(codecs.encode(array, blobs), blobs), array)


FRAME = pd.DataFrame(
    {
        "number": [1.5, None, 3.0],
        "text": ["x", "y", None],
        "kind": pd.Categorical(["u", "v", "u"]),
        "when": pd.date_range("2020", periods=3, tz="Europe/Berlin"),
        "list": [[1], [2, 3], []],
        "flag": pd.array([True, None, False], dtype="boolean"),
    },
    index=pd.Index([3, 4, 5], name="id"),
)
TABLES = {
    "frame": FRAME,
    "multi-index": FRAME.set_index(["kind", "text"]),
    "numbered-columns": pd.DataFrame({0: [1], 1: [2]}),
    "empty": pd.DataFrame(),
    "no-columns": pd.DataFrame(index=range(5)),
    "times": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2020", periods=2, freq="h")),
    "series": FRAME["when"],
    "series-tuple-name": pd.Series([1, 2], name=("a", 1)),
    "index": pd.Index(["a", "b"], name="n"),
    "range-index": pd.RangeIndex(2, 9, 3),
    "multi": pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["q", None]),
    "durations": pd.timedelta_range("1s", periods=3),
}


def assert_same_table(found: Any, value: Any) -> None:
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value)
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(found, value)
    else:
        pd.testing.assert_index_equal(found, value, exact=True)


@pytest.mark.parametrize("value", TABLES.values(), ids=TABLES)
def test_pandas_round_trips_with_stable_bytes(blobs: LocalBlobStore, value: Any) -> None:
    tree = codecs.encode(value, blobs)
    found = codecs.decode(tree, blobs)
    assert_same_table(found, value)
    assert codecs.encode(found, blobs) == tree
    assert codecs.encode(value.copy(), blobs) == tree


@pytest.mark.parametrize(
    "value",
    [
        pd.Timestamp("2020-01-01 03:04:05.123456789", tz="Europe/Berlin"),
        pd.Timestamp("9999-01-01").as_unit("s"),
        pd.Timedelta("3s"),
    ],
    ids=str,
)
def test_pandas_times_are_values(blobs: LocalBlobStore, value: Any) -> None:
    found = codecs.decode(codecs.encode(value, blobs), blobs, data=False)
    assert (found, found.unit, type(found)) == (value, value.unit, type(value))


def test_pandas_missing_values_are_themselves(blobs: LocalBlobStore) -> None:
    assert codecs.decode(codecs.encode(pd.NaT, blobs), blobs) is pd.NaT
    assert codecs.decode(codecs.encode(pd.NA, blobs), blobs) is pd.NA


def test_equal_tables_are_equal_bytes_whatever_lies_under_nulls(blobs: LocalBlobStore) -> None:
    mask = np.array([False, True])
    one, other = (pa.table({"a": pa.array(np.array([1, junk]), mask=mask)}) for junk in (2, 99))
    assert codecs.encode(one, blobs) == codecs.encode(other, blobs)
    assert codecs.decode(codecs.encode(one, blobs), blobs).equals(other)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([object()]), "dtype object"),
        (pd.DataFrame({"a": [object()]}), "Arrow cannot hold"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (File("/no/such/file"), "there is no file /no/such/file"),
        (Directory("/no/such/folder"), "there is no directory"),
    ],
    ids=["object-array", "object-column", "same-columns", "no-file", "no-folder"],
)
def test_data_that_cannot_be_carried_is_refused(blobs: LocalBlobStore, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=rf"value\['k'\].*{message}"):
        codecs.encode({"k": value}, blobs)
    assert list(blobs.iterate()) == []


@pytest.mark.parametrize("value", [np.arange(5), FRAME, pa.table({"a": [1]})], ids=["numpy", "pandas", "arrow"])
def test_damaged_data_is_never_returned(blobs: LocalBlobStore, value: Any) -> None:
    tree = codecs.encode(value, blobs)
    ref = codecs.decode(tree, blobs, data=False)
    assert isinstance(ref, Ref)
    path = Path(blobs.path(tree["blob"]))
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        ref.load()
    with pytest.raises(StorageError):  # it was removed, so that
        codecs.decode(tree, blobs)
    assert codecs.encode(value, blobs) == tree  # whoever makes it anew stores it anew
    assert type(codecs.decode(tree, blobs)) is type(value)


def test_file_goes_through_the_store(blobs: LocalBlobStore, tmp_path: Path) -> None:
    (tmp_path / "curve.svg").write_text("<svg/>")
    file = File(tmp_path / "curve.svg")
    tree = codecs.encode(file, blobs)
    (tmp_path / "curve.svg").unlink()
    found = codecs.decode(tree, blobs)
    assert (found.read_text(), found.name, found.digest) == ("<svg/>", "curve.svg", tree["blob"])
    assert codecs.encode(found, blobs) == tree


def test_copy_of_a_file_is_private(blobs: LocalBlobStore, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first")
    tree = codecs.encode(File(tmp_path / "a.txt"), blobs)
    with task_context.entered(task_context.TaskContext(scratch=str(tmp_path))):
        found = codecs.decode(tree, blobs)
        assert Path(found.path).is_relative_to(tmp_path)
        assert Path(found.path).name == "a.txt"
        Path(found).write_text("second")
    changed = codecs.encode(found, blobs)
    assert codecs.decode(changed, blobs).read_text() == "second"
    assert codecs.decode(tree, blobs).read_text() == "first"


def test_copy_in_plain_python_goes_with_its_object(blobs: LocalBlobStore, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    found = codecs.decode(codecs.encode(File(tmp_path / "a.txt"), blobs), blobs)
    path = found.path
    assert os.path.exists(path)
    del found
    assert not os.path.exists(os.path.dirname(path))


def test_file_name_cannot_leave_its_folder(blobs: LocalBlobStore) -> None:
    leaf = {"$codec": "file", **vars_of(blobs.put(b"x")), "metadata": {"name": "../../evil"}}
    found = codecs.decode(leaf, blobs)
    assert found.name == "evil"


def vars_of(blob: Any) -> dict[str, Any]:
    return {"blob": blob.digest, "size": blob.size}


def test_file_whose_blob_is_gone_is_refused_at_once(blobs: LocalBlobStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    tree = codecs.encode(File(tmp_path / "a"), blobs)
    blobs.delete(tree["blob"])
    with pytest.raises(StorageError, match="of a is gone"):
        codecs.decode(tree, blobs)


def test_directory_goes_through_the_store(blobs: LocalBlobStore, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "deep" / "empty").mkdir(parents=True)
    (model / "weights").write_bytes(bytes(range(256)) * 100)
    (model / "deep" / "run.sh").write_text("#!")
    (model / "deep" / "run.sh").chmod(0o755)
    (model / "deep" / "link").symlink_to("../weights")
    tree = codecs.encode(Directory(model), blobs)
    found = codecs.decode(tree, blobs)
    assert found.digest == Directory(model).digest == tree["blob"]
    copy = Path(found.path)
    names = sorted(str(path.relative_to(copy)) for path in copy.rglob("*"))
    assert names == ["deep", "deep/empty", "deep/link", "deep/run.sh", "weights"]
    assert (copy / "deep" / "link").read_bytes() == bytes(range(256)) * 100
    assert os.access(copy / "deep" / "run.sh", os.X_OK)
    assert codecs.encode(found, blobs) == tree


SCRIPT = """
import sys
import numpy as np, pandas as pd
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.uniflow import codecs
values = [{"b", "a", 3, (1, "x")}, {"k": {frozenset("abc")}}, {1: {"u", "v"}}, np.arange(4),
          pd.DataFrame({"c": pd.Categorical(list("xyzx")), "t": ["p", None, "q", "r"]}), ["z" * 30_000, {"q", "r"}]]
print(codecs.digest(codecs.encode(values, MemoryBlobStore())))
"""


def test_digests_are_the_same_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(found) == 1
    assert found.pop().startswith("sha256:")


@pytest.mark.parametrize("make", ["array", "directory"])
def test_damage_where_the_format_begins_is_told_as_damage_and_removed(tmp_path: Path, make: str) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x" * 100_000)
    value = np.arange(100_000) if make == "array" else Directory(tmp_path / "folder")
    tree = codecs.encode(value, store)
    (digest,) = set(codecs.blobs_in(tree))
    path = Path(store.path(digest))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"damage" * 200)

    def load() -> Any:
        found = codecs.decode(tree, store)
        return found.path if make == "directory" else found

    with pytest.raises(IntegrityError, match=digest):
        load()
    assert not store.has(digest)
