"""IO classes: the registry, and values that travel by what their IO writes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from michelangelo.blobs.local import LocalBlobStore
from michelangelo.errors import CodecError, IntegrityError
from michelangelo.uniflow import codecs, task_context
from michelangelo.uniflow.codecs.io_registry import IO, BytesIO, IORegistry, default_io, io_registry
from michelangelo.uniflow.ref import Ref


class Figure:
    def __init__(self, points: list[int], broken: bool = False) -> None:
        self.points = points
        self.broken = broken


class SmallFigure(Figure):
    pass


class FigureIO(IO[Figure]):
    """Writes a folder: an index, and a file per point."""

    def write(self, url: str, value: Figure) -> dict[str, int]:
        os.makedirs(os.path.join(url, "points"))
        for number, point in enumerate(value.points):
            Path(url, "points", str(number)).write_text(str(point))
        if value.broken:
            raise OSError("the pen is empty")
        return {"count": len(value.points)}

    def read(self, url: str, metadata: Any) -> Figure:
        return Figure([int(Path(url, "points", str(number)).read_text()) for number in range(metadata["count"])])


class FrameIO(IO[pd.DataFrame]):
    def write(self, url: str, value: pd.DataFrame) -> None:
        value.to_csv(url, index=False)

    def read(self, url: str, metadata: Any) -> pd.DataFrame:
        return pd.read_csv(url)


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def registered() -> Iterator[IORegistry]:
    """`default_io` with an IO of figures."""
    default_io.set(Figure, FigureIO)
    yield default_io
    default_io._registry.pop(Figure)


def test_registered_io_carries_a_value(
    registered: IORegistry, blobs: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    with task_context.entered(task_context.TaskContext(scratch=str(folder))):
        tree = codecs.encode({"figure": Figure([3, 4])}, blobs)
        assert os.listdir(folder) == []
        found = codecs.decode(tree, blobs)
    assert found["figure"].points == [3, 4]
    assert codecs.encode(found, blobs) == tree
    ref = codecs.decode(tree, blobs, data=False)["figure"]
    assert isinstance(ref, Ref)
    assert ref.load().points == [3, 4]


def test_io_of_the_nearest_base_carries_a_value(registered: IORegistry, blobs: LocalBlobStore) -> None:
    assert codecs.decode(codecs.encode(SmallFigure([1]), blobs), blobs).points == [1]


def test_io_goes_before_the_codec_of_the_platform(blobs: LocalBlobStore) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    default_io.set(pd.DataFrame, FrameIO())
    try:
        tree = codecs.encode(frame, blobs)
        assert blobs.get(tree["blobs"][0]) == b"a\n1\n2\n"
        pd.testing.assert_frame_equal(codecs.decode(tree, blobs), frame)
    finally:
        default_io._registry.pop(pd.DataFrame)
    assert codecs.encode(frame, blobs)["$codec"] == "pandas"


def test_io_that_fails_half_way_leaves_nothing(registered: IORegistry, blobs: LocalBlobStore, tmp_path: Path) -> None:
    with (
        task_context.entered(task_context.TaskContext(scratch=str(tmp_path))),
        pytest.raises(CodecError, match=r"value\['all'\]\[1\]: codec io failed on this .*Figure: OSError: the pen is"),
    ):
        codecs.encode({"all": [Figure([1]), Figure([2], broken=True)]}, blobs)
    assert list(blobs.iterate()) == []
    assert os.listdir(tmp_path) == ["blobs"]


def test_damaged_file_of_an_io_is_never_given_to_it(registered: IORegistry, blobs: LocalBlobStore) -> None:
    tree = codecs.encode(Figure([12345]), blobs)
    path = Path(blobs.path(tree["blobs"][0]))
    path.chmod(0o600)
    path.write_text("54321")
    with pytest.raises(IntegrityError, match=r"blob sha256:\w+ .* is damaged"):
        codecs.decode(tree, blobs)


def test_value_whose_io_is_not_registered_here_is_refused(blobs: LocalBlobStore) -> None:
    default_io.set(Figure, FigureIO)
    tree = codecs.encode(Figure([1]), blobs)
    default_io._registry.pop(Figure)
    with pytest.raises(CodecError, match="has no IO here; enter it in default_io at the top"):
        codecs.decode(tree, blobs)


def test_file_names_of_an_io_cannot_leave_their_folder(registered: IORegistry, blobs: LocalBlobStore) -> None:
    tree = codecs.encode(Figure([1]), blobs)
    tree["files"] = {"../../evil": tree["blobs"][0]}
    with pytest.raises(CodecError, match="would leave its folder"):
        codecs.decode(tree, blobs)


def test_bytes_io_is_carried(blobs: LocalBlobStore) -> None:
    buffer = io.BytesIO(b"content")
    buffer.read()
    assert codecs.decode(codecs.encode(buffer, blobs), blobs).getvalue() == b"content"


def test_registry_refuses_a_second_io_for_a_type() -> None:
    registry = IORegistry({io.BytesIO: BytesIO})
    with pytest.raises(KeyError, match="has an IO already"):
        registry.set(io.BytesIO, BytesIO())
    with pytest.raises(KeyError, match="has an IO already"):
        registry.update({Figure: FigureIO, io.BytesIO: BytesIO()})
    assert Figure not in registry
    assert isinstance(registry.set(io.BytesIO, FigureIO, force=True)[io.BytesIO], FigureIO)


def test_registry_makes_an_io_once_and_copies_apart() -> None:
    made: list[FigureIO] = []

    def factory() -> FigureIO:
        made.append(FigureIO())
        return made[-1]

    registry = IORegistry({})
    copy = registry.copy()
    registry[Figure] = factory
    assert registry[SmallFigure] is registry[Figure] is made[0]
    assert (len(made), Figure in copy, SmallFigure in registry, str in registry) == (1, False, True, False)
    with pytest.raises(KeyError, match="has no IO"):
        copy[Figure]
    assert io_registry() is default_io


def test_factory_that_makes_no_io_is_refused() -> None:
    factory: Any = dict
    with pytest.raises(TypeError, match="which is no IO"):
        IORegistry({Figure: factory})[Figure]
