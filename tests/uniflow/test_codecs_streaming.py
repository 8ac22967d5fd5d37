"""Large values pass through small processes; what cannot be carried leaves nothing; damage is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from michelangelo.blobs.local import LocalBlobStore
from michelangelo.errors import CodecError, IntegrityError
from michelangelo.uniflow import codecs, task_context
from michelangelo.uniflow.codecs import registry
from michelangelo.uniflow.files import Directory, File

GIB = 1 << 30

# Of this program alone: what getrusage tells begins with the memory of the process that started it.
PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024"

PROGRAM = """
import os
from michelangelo import uniflow

SIZE = 5 * 2**30

@uniflow.task
def make() -> uniflow.File:
    with open("large", "wb") as file:
        file.truncate(SIZE)
    found = uniflow.File("large")
    return found

@uniflow.task
def extend(file: uniflow.File) -> uniflow.File:
    os.unlink("large")
    with file.open() as source, open("larger", "wb") as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)
        target.write(b"end")
    return uniflow.File("larger")

@uniflow.workflow
def pipeline() -> int:
    return extend(make()).size

if __name__ == "__main__":
    print(pipeline() - SIZE, PEAK)
""".replace("PEAK", PEAK)


@pytest.mark.slow
def test_five_gigabytes_pass_through_two_tasks_in_200_megabytes(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    if free < 20 * GIB:
        pytest.skip(f"needs 20 GiB of disk, and {tmp_path} has {free // GIB}")
    (tmp_path / "flow.py").write_text(PROGRAM)
    environment = {**os.environ, "MA_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    try:
        done = subprocess.run(
            [sys.executable, "flow.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
        longer, driver = map(int, done.stdout.split())
        listed = subprocess.run(
            [sys.executable, "-m", "michelangelo.cli", "get", "taskrun", "-n", "local", "-o", "json"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        tasks = {item["spec"]["task"]: item["status"]["details"] for item in json.loads(listed.stdout)["items"]}
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
    assert longer == 3
    peaks = {"driver": driver, **{name: details["maxRssBytes"] for name, details in tasks.items()}}
    assert len(peaks) == 3
    assert max(peaks.values()) <= 200 * 10**6, peaks


@pytest.mark.slow
def test_large_directory_is_packed_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with open(folder / "weights", "wb") as file:
        file.truncate(400 << 20)
    script = (
        "import sys\n"
        "from michelangelo.blobs.local import LocalBlobStore\n"
        "from michelangelo.uniflow import codecs, files\n"
        "blobs = LocalBlobStore(sys.argv[2])\n"
        "tree = codecs.encode(files.Directory(sys.argv[1]), blobs)\n"
        "path = codecs.decode(tree, blobs).path\n"
        f"print({PEAK})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "blobs")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert int(done.stdout) <= 200 * 10**6


class Sealed:
    """Carried by a codec that fails when it is asked to."""

    def __init__(self, is_broken: bool = False) -> None:
        self.is_broken = is_broken


def seal(value: Sealed) -> Any:
    if value.is_broken:
        raise LookupError("no wax")
    return [np.arange(1000), b"x" * 10_000]


registry.register_codec(Sealed, name="test-sealed", encode=seal, decode=lambda _: Sealed())


def test_codec_that_fails_half_way_leaves_nothing_and_names_the_path(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path / "blobs")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    value = {"good": [Sealed(), pd.DataFrame({"a": range(1000)}), np.ones(3)], "bad": (1, {"x": Sealed(True)})}
    with (
        task_context.entered(task_context.TaskContext(scratch=str(scratch))),
        pytest.raises(CodecError) as failure,
    ):
        codecs.encode(value, blobs)
    assert "value['bad'][1]['x']: codec test-sealed failed on this " in failure.value.message
    assert failure.value.message.endswith("Sealed: LookupError: no wax")
    assert list(blobs.iterate()) == []
    assert os.listdir(scratch) == os.listdir(tmp_path / "blobs" / "tmp") == []


def test_large_blobs_do_not_wait_in_memory(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path / "blobs")
    parts = [np.full(1 << 20, number, dtype="u8") for number in range(4)]
    tree = codecs.encode(parts, blobs)
    assert [part[0] for part in codecs.decode(tree, blobs)] == [0, 1, 2, 3]


def consume(table: pd.DataFrame, model: File) -> None: ...


def test_damaged_argument_is_named_and_can_be_stored_again(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path / "blobs")
    table = pd.DataFrame({"a": range(1000)})
    encoded = codecs.encode_arguments((table,), {"model": 3}, blobs)
    digest = encoded["args"][0]["blob"]
    path = Path(blobs.path(digest))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=rf"argument table of task consume: blob {digest} .* is damaged"):
        codecs.decode_arguments(encoded, blobs, fn=consume)
    assert not blobs.has(digest)
    codecs.encode_arguments((table,), {}, blobs)
    assert codecs.decode_arguments(encoded, blobs, fn=consume)[0][0].equals(table)


def test_damaged_file_is_found_by_who_reads_it_to_its_end(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path / "blobs")
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").mkdir()
    for value in (File(tmp_path / "a"), Directory(tmp_path / "b")):
        tree = codecs.encode(value, blobs)
        path = Path(blobs.path(tree["blob"]))
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(IntegrityError, match=tree["blob"]):
            _ = codecs.decode(tree, blobs).path
        assert not blobs.has(tree["blob"])


def test_documentation_names_every_codec() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    known = registry.platform_codecs()
    assert len(known) > 50
    assert sorted(name for name in known if f"`{name}`" not in page) == []
