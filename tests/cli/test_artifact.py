"""artifact: what a real run produced, listed, fetched and looked into; in the home folder and through a server."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from michelangelo.app.platform import Platform
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.cli import artifacts

Mactl = Callable[..., Any]

FLOW = """
import pathlib
from dataclasses import dataclass

from michelangelo import uniflow
from michelangelo.uniflow.codecs.io_registry import IO, default_io

HERE = pathlib.Path(__file__).parent


class Curve:
    pass


class CurveIO(IO[Curve]):
    def write(self, url: str, value: Curve) -> None:
        pathlib.Path(url, "sub").mkdir(parents=True)
        pathlib.Path(url, "sub", "a.txt").write_text("one")
        pathlib.Path(url, "b.txt").write_text("two")

    def read(self, url: str, metadata: None) -> Curve:
        return Curve()


default_io.set(Curve, CurveIO)


@dataclass
class Result:
    score: float
    note: uniflow.File


@uniflow.task
def table() -> object:
    import pandas as pd

    return pd.DataFrame({"number": range(30), "word": ["a b"] * 30})


@uniflow.task
def array() -> object:
    import numpy as np

    return np.arange(12.0).reshape(3, 4)


@uniflow.task
def train() -> Result:
    (HERE / "note.txt").write_text("first line\\nsecond line\\n")
    return Result(0.5, uniflow.File(HERE / "note.txt"))


@uniflow.task
def folder() -> uniflow.Directory:
    (HERE / "out" / "sub").mkdir(parents=True, exist_ok=True)
    (HERE / "out" / "sub" / "x.txt").write_text("x" * 10)
    return uniflow.Directory(HERE / "out")


@uniflow.task
def score(number: int) -> dict[str, float]:
    return {"accuracy": number / 10}


@uniflow.task
def picture() -> bytes:
    size = (640).to_bytes(4, "big") + (480).to_bytes(4, "big")
    return b"\\x89PNG\\r\\n\\x1a\\n" + b"\\0\\0\\0\\rIHDR" + size + bytes(9000)


@uniflow.task
def rows() -> object:
    import pandas as pd
    from michelangelo.workflow.variables import DatasetVariable

    return DatasetVariable.create(pd.DataFrame({"price": [1.5, 2.5]}))


@uniflow.task
def curve() -> object:
    return Curve()


@uniflow.workflow
def flow() -> None:
    table()
    array()
    train()
    folder()
    for number in range(2):
        score(number)
    picture()
    rows()
    curve()


if __name__ == "__main__":
    uniflow.main(flow)
"""


REPAIRED = """
import os, pathlib

from michelangelo import uniflow


@uniflow.task
def make() -> uniflow.File:
    pathlib.Path("data").write_bytes(bytes(100_000))
    return uniflow.File("data")


@uniflow.task
def size(data: uniflow.File) -> int:
    return len(data.read_bytes())


@uniflow.workflow
def flow() -> int:
    data = make()
    for found in pathlib.Path(os.environ["MA_HOME"], "blobs").rglob("*"):
        if found.is_file() and found.stat().st_size > 90_000:
            found.unlink()
    return size(data)


if __name__ == "__main__":
    uniflow.main(flow)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home in which the flow ran once, and the name of the run."""
    place = tmp_path_factory.mktemp("artifacts")
    (place / "flow.py").write_text(FLOW)
    environment = {**os.environ, "MA_HOME": str(place / "home"), "MA_PROJECT": "demo"}
    subprocess.run([sys.executable, "flow.py"], cwd=place, env=environment, check=True, capture_output=True)
    return place / "home", next((place / "home" / "logs" / "demo").iterdir()).name


@pytest.fixture
def home(ran: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Overrides the empty one; files are written to a folder of the test's own."""
    monkeypatch.setenv("MA_HOME", str(ran[0]))
    monkeypatch.setenv("MA_NAMESPACE", "demo")
    monkeypatch.delenv("MA_CONTEXT", raising=False)
    (ran[0] / "kubeconfig").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    return ran[0]


@pytest.fixture
def run(ran: tuple[Path, str]) -> str:
    return ran[1]


def test_list_shows_what_the_tasks_of_a_run_produced(anywhere: Platform, run: str, mactl: Mactl) -> None:
    result = mactl("artifact", "list", run)
    assert result.code == 0, result
    rows = [line.split() for line in result.out.splitlines()]
    assert rows[0] == ["NAME", "TYPE", "SIZE", "DIGEST", "DETAILS"]
    assert [row[0] for row in rows[1:]] == [
        *("table", "array", "train", "train.note", "folder", "score#1", "score#2", "picture", "rows", "curve")
    ]
    assert {"pandas.DataFrame", "rows=30", "columns=2"} <= set(rows[1])
    assert {"numpy.ndarray", "shape=3x4", "dtype=float64"} <= set(rows[2])
    assert {"File", "name=note.txt"} <= set(rows[4])


def test_list_without_a_run_shows_the_newest_ones(home: Path, run: str, mactl: Mactl) -> None:
    assert mactl("artifact", "list").out.splitlines()[1].split()[:2] == [run, "table"]
    assert mactl("artifact", "list", "-o", "name").out.splitlines()[0] == f"{run}/table"
    found = json.loads(mactl("artifact", "list", run, "-o", "json").out)
    assert found[0]["metadata"]["columns"] == ["number", "word"]
    assert found[0]["digest"].startswith("sha256:")
    assert "artifacts" in mactl("artifact", "list", "-n", "local").err


def test_get_writes_a_table_as_parquet_or_csv(anywhere: Platform, run: str, mactl: Mactl, tmp_path: Path) -> None:
    assert mactl("artifact", "get", run, "table").code == 0
    assert (tmp_path / "table.parquet").read_bytes()[:4] == b"PAR1"
    assert mactl("artifact", "get", run, "table", "-o", "t.csv").code == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[29] == {"number": "29", "word": "a b"}


def test_get_unpacks_a_directory(anywhere: Platform, run: str, mactl: Mactl, tmp_path: Path) -> None:
    result = mactl("artifact", "get", run, "folder", "-o", "here")
    assert result.code == 0, result
    assert (tmp_path / "here" / "sub" / "x.txt").read_text() == "x" * 10
    again = mactl("artifact", "get", run, "folder", "-o", "here", "--force")
    assert again.code == 2
    assert "here exists already: remove it" in again.err


def test_steps_are_numbered_as_they_were_called() -> None:
    called = ["f@10:1#1/g@3:1#1", "f@2:1#10", "f@10:1#1", "f@2:1#2"]
    assert sorted(called, key=artifacts.step_order) == ["f@2:1#2", "f@2:1#10", "f@10:1#1", "f@10:1#1/g@3:1#1"]


def test_what_was_made_again_is_no_second_artifact(mactl: Mactl, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "flow.py").write_text(REPAIRED)
    monkeypatch.setenv("MA_HOME", str(tmp_path / "home"))
    environment = dict(os.environ)
    done = subprocess.run(
        [sys.executable, "flow.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "; its data is made again, then it will run again" in done.stderr
    run = done.stderr.split()[1].rstrip(":")
    listed = mactl("artifact", "list", run, "-n", "local", "-o", "name").out
    assert [line.rpartition("/")[2] for line in listed.splitlines()] == ["make", "size"]
    told = mactl("cache", "explain", run, "make", "-n", "local")
    assert told.code == 0, told


def test_data_in_shards_is_one_artifact(anywhere: Platform, run: str, mactl: Mactl, tmp_path: Path) -> None:
    (listed,) = [one for one in json.loads(mactl("artifact", "list", run, "-o", "json").out) if one["name"] == "rows"]
    assert (listed["type"], listed["size"] > 1000) == ("DatasetVariable", True)
    assert "price (double)" in mactl("artifact", "preview", run, listed["digest"]).out
    mactl("artifact", "get", f"{run}/rows", "-o", str(tmp_path / "rows.csv"))
    assert (tmp_path / "rows.csv").read_text().split() == ["price", "1.5", "2.5"]


def test_data_in_several_files_goes_to_a_folder(anywhere: Platform, run: str, mactl: Mactl, tmp_path: Path) -> None:
    looked = mactl("artifact", "preview", run, "curve").out
    assert "2 files, of which value/b.txt:\ntwo" in looked
    mactl("artifact", "get", run, "curve", "-o", str(tmp_path / "curve"))
    assert (tmp_path / "curve" / "value" / "sub" / "a.txt").read_text() == "one"
    assert (tmp_path / "curve" / "value" / "b.txt").read_text() == "two"
    refused = mactl("artifact", "get", run, "curve", "-o", "-")
    assert (refused.code, "which goes to a folder" in refused.err) == (2, True), refused


def test_get_by_path_by_digest_and_to_standard_output(home: Path, run: str, mactl: Mactl, tmp_path: Path) -> None:
    assert mactl("artifact", "get", run, "train.note").code == 0
    assert (tmp_path / "note.txt").read_text() == "first line\nsecond line\n"
    digest = json.loads(mactl("artifact", "list", run, "-o", "json").out)[3]["digest"]
    assert mactl("artifact", "get", run, digest[7:19], "-o", "by-digest").code == 0
    assert mactl("artifact", "get", digest, "-o", "by-digest-alone").code == 0
    assert (tmp_path / "by-digest").read_bytes() == (tmp_path / "by-digest-alone").read_bytes()
    assert mactl("artifact", "get", run, "score#2").code == 0
    assert json.loads((tmp_path / "score-2.json").read_text()) == {"accuracy": 0.1}


def test_get_refuses_to_write_over_a_file(home: Path, run: str, mactl: Mactl, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    result = mactl("artifact", "get", run, "train.note")
    assert (result.code, (tmp_path / "note.txt").read_text()) == (2, "mine")
    assert "note.txt exists already" in result.err
    assert mactl("artifact", "get", run, "train.note", "--force").code == 0
    assert (tmp_path / "note.txt").read_text() == "first line\nsecond line\n"
    assert mactl("artifact", "get", run, "train.note", "-o", "no/such/folder").code == 2


def test_preview_of_each_format(anywhere: Platform, run: str, mactl: Mactl) -> None:
    shown = {name: mactl("artifact", "preview", run, name, "--rows", "3").out for name in ("table", "array", "folder")}
    lines = shown["table"].splitlines()
    assert lines[1:3] == ["30 rows, 2 columns", lines[2]]
    assert lines[2].split()[0] == "number"
    assert lines[3].split() == ["0", "a", "b"]
    assert lines[-1] == "… 27 more"
    assert "shape (3, 4)" in shown["array"]
    assert "min 0.0, max 11.0, mean 5.5" in shown["array"]
    assert "1 files, 10 B" in shown["folder"]
    assert "sub/x.txt" in shown["folder"]
    assert "PNG image, 640 x 480" in mactl("artifact", "preview", run, "picture").out
    assert '"accuracy": 0.0' in mactl("artifact", "preview", run, "score#1").out
    assert "first line" in mactl("artifact", "preview", run, "train.note", "--rows", "1").out


def test_preview_of_tensors_needs_no_library(home: Path, run: str, mactl: Mactl, platform: Platform) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {}}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(24)
    digest = platform.blobs.put(data).digest
    lines = mactl("artifact", "preview", digest).out.splitlines()
    assert lines[1:] == ["1 tensors", "NAME   DTYPE   SHAPE", "w      F32     2x3"]


def test_preview_fetches_no_more_than_it_may(home: Path, run: str, mactl: Mactl, platform: Platform) -> None:
    blob = platform.blobs.put(b"PAR1" + bytes(2 << 20))
    spec = {"pipelineRun": run, "step": "s", "attempt": 1, "type": "Task", "task": "large", "fingerprint": "f"}
    leaf = {"$codec": "arrow", "blob": blob.digest, "size": blob.size, "metadata": {"rows": 9, "columns": ["a", "b"]}}
    name = f"{run}-aaaaaaaaaaaa-1"
    platform.client.create(
        {
            "apiVersion": "michelangelo.api/v2",
            "kind": "TaskRun",
            "metadata": {"name": name, "namespace": "demo", "labels": {"michelangelo/pipeline-run": run}},
            "spec": spec,
            "status": {"state": "Succeeded", "output": leaf},
        }
    )
    try:
        shown = mactl("artifact", "preview", run, "large", "--max-size", "1").out
        assert "at most 1.0 MiB" in shown
        assert "columns: a, b" in shown
        assert "no more can be shown" in mactl("artifact", "preview", run, "large").out
    finally:
        platform.client.delete("TaskRun", name, namespace="demo")


def test_without_pyarrow_a_table_says_so(ran: tuple[Path, str]) -> None:
    script = (
        "import sys\nsys.modules['pyarrow'] = None\n"
        "from michelangelo.cli.main import main\nmain(['artifact', 'preview', sys.argv[1], 'table', '-n', 'demo'])"
    )
    environment = {**os.environ, "MA_HOME": str(ran[0])}
    (ran[0] / "kubeconfig").unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-c", script, ran[1]], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "rows=30" in done.stdout
    assert "no more can be shown: values of this type need a library that is not installed" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "run-none"), "there is no run 'run-none' in project demo"),
        (("get", "RUN", "nothing"), "has no artifact 'nothing'; it has table, array"),
        (("get", "RUN", "score"), "the task score ran 2 times: choose one of score#1, score#2"),
        (("get", "sha256:12"), "is no blob digest"),
        (("get", "sha256:" + "0" * 64), "sha256:" + "0" * 64),
        (("preview", "RUN"), "name a run and an artifact of it"),
        (("get", "RUN", "folder", "-o", "-"), "is a directory"),
        (("collect", "--older-than", "5m"), "younger than 60 minutes stay"),
    ],
)
def test_bad_input_says_what_to_do(
    anywhere: Platform, run: str, mactl: Mactl, words: tuple[str, ...], message: str
) -> None:
    result = mactl("artifact", *(run if word == "RUN" else word for word in words))
    assert result.code != 0
    assert message in result.err
    assert "Traceback" not in result.err


def test_damaged_blob_is_named_and_nothing_is_written(
    anywhere: Platform, run: str, mactl: Mactl, tmp_path: Path
) -> None:
    assert isinstance(anywhere.blobs, LocalBlobStore)
    digest = json.loads(mactl("artifact", "list", run, "-o", "json").out)[3]["digest"]
    path = Path(anywhere.blobs.path(digest))
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole.replace(b"first", b"other"))
    try:
        result = mactl("artifact", "get", run, "train.note")
        assert result.code != 0
        assert "damaged" in result.err
        assert list(tmp_path.iterdir()) == [path for path in tmp_path.iterdir() if path.name == "home"]
    finally:
        path.write_bytes(whole)
        path.chmod(0o400)


def test_collect_frees_what_nothing_names(anywhere: Platform, run: str, mactl: Mactl) -> None:
    assert isinstance(anywhere.blobs, LocalBlobStore)
    anywhere.collector.collect()
    digest = anywhere.blobs.put(b"garbage").digest
    os.utime(anywhere.blobs.path(digest), (1, 1))
    dry = mactl("artifact", "collect", "--dry-run", "--older-than", "2h")
    assert dry.out.splitlines()[0] == "would be freed: 1 blobs, 7 B", dry
    assert anywhere.blobs.has(digest)
    assert mactl("artifact", "collect").out.splitlines()[0] == "freed: 1 blobs, 7 B"
    assert not anywhere.blobs.has(digest)
    assert json.loads(mactl("artifact", "collect", "-o", "json").out)["blobs"] == 0
