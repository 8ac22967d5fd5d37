"""What is wrong with the machine, not with what was typed: disk, port, database, home."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.bad_input.conftest import Desk, Result, Served

FLOW = """
from michelangelo import uniflow

@uniflow.task
def large(megabytes: int) -> bytes:
    return b"x" * (megabytes << 20)

@uniflow.workflow
def flow(megabytes: int = 0) -> int:
    return len(large(megabytes))

@uniflow.workflow
def returning(megabytes: int = 0) -> bytes:
    return b"y" * (megabytes << 20)

if __name__ == "__main__":
    import sys
    uniflow.main(returning if sys.argv.pop(1) == "returning" else flow)
"""


def run_with_little_disk(desk: Desk, kibibytes: int, *words: str) -> Result:
    """`python flow.py` under a limit on the size of the files that it writes: the kernel refuses a write as it does on
    a full disk."""
    return desk.run("bash", "-c", f"ulimit -f {kibibytes}; exec {sys.executable} flow.py {' '.join(words)}")


def blobs(desk: Desk) -> list[str]:
    """Their digests, and whatever else is there."""
    folder = desk.home / "blobs"
    return sorted("".join(path.relative_to(folder).parts) for path in folder.rglob("*") if path.is_file())


# --- disk -------------------------------------------------------------------------------------------------


def test_disk_full_at_a_tasks_result_fails_the_task_and_leaves_no_blob(desk: Desk) -> None:
    desk.write("flow.py", FLOW)
    result = run_with_little_disk(desk, 4096, "flow", "--megabytes", "8")
    said = result.refused(5, "the result of large: cannot store or read blob sha256:", "the disk is full: free some")
    assert "flow.py, line 3, in large" in said
    (run,) = desk.objects("pipelineruns")
    assert run["status"]["state"] == "Failed"
    (only,) = blobs(desk)
    assert run["spec"]["pipelineSpec"]["manifest"]["uniflowTar"] == f"sha256:{only}"
    assert desk.python("flow.py", "flow", "--megabytes", "8").out == f"{8 << 20}\n"


def test_disk_full_at_the_workflows_result_leaves_a_run_that_goes_on(desk: Desk) -> None:
    desk.write("flow.py", FLOW)
    result = run_with_little_disk(desk, 4096, "returning", "--megabytes", "8")
    result.refused(5, "cannot store or read blob sha256:", "the disk is full: free some space", "--resume run-")
    assert len(blobs(desk)) == 1
    resumed = desk.python("flow.py", "returning", "--resume")
    assert resumed.code == 0, str(resumed)
    (run,) = desk.objects("pipelineruns")
    assert run["status"]["state"] == "Succeeded"


def test_disk_full_at_the_database_starts_nothing(desk: Desk) -> None:
    desk.write("flow.py", FLOW)
    result = run_with_little_disk(desk, 20, "flow")
    result.refused(5, str(desk.database), "it may be full, over a quota, or failing")
    assert desk.python("flow.py", "flow").out == "0\n"
    assert len(desk.objects("pipelineruns")) == 1


# --- database ---------------------------------------------------------------------------------------------


@pytest.fixture
def used(desk: Desk) -> Desk:
    """A home in which a run has ended."""
    desk.write("flow.py", FLOW)
    assert desk.python("flow.py", "flow").code == 0
    return desk


def make_newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO migration VALUES (99, 'm099_of_tomorrow', 0)")
        connection.commit()


def make_foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def overwrite(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def spoil_the_tables(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (make_newer, ["written by a newer version of michelangelo (schema 99, this program knows", "upgrade it"]),
        (make_foreign, ["is a database of another program; nothing was changed: move it away"]),
        (overwrite, ["is damaged, or no database of michelangelo", "nothing was changed: move it away", "a backup"]),
        (cut, ["is damaged, or no database of michelangelo", "nothing was changed: move it away"]),
        (spoil_the_tables, ["is damaged, or no database of michelangelo", "nothing was changed: move it away"]),
        (lambda path: path.write_bytes(b"hello"), ["is no database; nothing was changed: move it away"]),
    ],
    ids=["newer", "foreign", "random", "cut", "tables", "text"],
)
def test_database_that_cannot_be_used_is_left_as_it_is(used: Desk, damage: object, words: list[str]) -> None:
    assert callable(damage)
    damage(used.database)
    before = files(used.home)
    for result in (used.python("flow.py", "flow"), used.mactl("get", "pr"), used.mactl("serve")):
        result.refused(5, str(used.database), *words)
    assert {path: digest for path, digest in files(used.home).items() if path in before} == before
    assert "kubeconfig" not in files(used.home)


def files(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.rglob("*")
        if path.is_file()
    }


# --- home, port, server -----------------------------------------------------------------------------------


def test_home_that_is_a_file_is_named(desk: Desk) -> None:
    desk.write("flow.py", FLOW)
    desk.home.write_text("mine")
    for result in (desk.python("flow.py", "flow"), desk.mactl("serve")):
        result.refused(2, f"MA_HOME={desk.home}: the folder cannot be made", "choose one that you may write to")
    assert desk.home.read_text() == "mine"


def test_setting_that_is_wrong_is_named_with_what_is_allowed(desk: Desk) -> None:
    desk.write("flow.py", FLOW)
    words = ["MA_TASK_SLOTS='many': must be a whole number from 0 to"]
    desk.python("flow.py", "flow", MA_TASK_SLOTS="many").refused(2, *words)
    desk.mactl("get", "pr", MA_TASK_SLOTS="many").refused(2, *words)
    assert not desk.home.exists()


def test_port_in_use_is_named_and_nothing_is_made(served: Served, desk: Desk) -> None:
    port = served.url.rpartition(":")[2]
    desk.mactl("serve", "--port", port).refused(2, f"port {port} of 127.0.0.1 is in use", "choose another port")
    assert not (desk.home / "kubeconfig").exists()
    assert desk.objects("projects") == []


def test_verb_without_a_server_says_what_to_start(desk: Desk) -> None:
    desk.write("flow.py", FLOW)
    desk.mactl("get", "pr").refused(3, "no server answers", "start one with `mactl serve`")
    desk.mactl("pipeline", "dev-run", "flow.py:flow").refused(3, "no server answers", "`mactl serve`")
    assert not desk.home.exists()
