"""Tasks that misbehave, in a real `python flow.py`: each ends, says why, and leaves no process, file or open run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
from tests.bad_input.conftest import Desk, Result, until

FLOW = """
import ctypes
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from michelangelo import uniflow


@uniflow.task
def lock():
    return {"inside": [threading.Lock()]}


@uniflow.task
def chatty() -> int:
    os.write(1, b"the first line\\n")
    for _ in range(10_000):
        os.write(1, (b"x" * 99 + b"\\n") * 100)
    os.write(1, b"the last line\\n")
    return 100


@uniflow.task
def family() -> int:
    child = subprocess.Popen(["sleep", "1000"])
    session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path("daemon").write_text(str(os.getpid()))
            time.sleep(1000)
        os._exit(0)
    while not (Path("daemon").exists() and Path("daemon").read_text()):
        time.sleep(0.01)
    Path("pids").write_text(json.dumps([child.pid, session.pid, int(Path("daemon").read_text())]))
    return 3


@uniflow.task
def exits() -> None:
    os._exit(7)


@uniflow.task
def crashes() -> None:
    ctypes.string_at(0)


@uniflow.task(config=uniflow.Process(memory="150Mi"))
def eats() -> None:
    kept = []
    while True:
        kept.append(b"x" * (8 << 20))


@uniflow.task(timeout_seconds=0.5)
def stubborn() -> None:
    deaf()


@uniflow.task
def immortal() -> None:
    deaf()


def deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path("pid").write_text(str(os.getpid()))
    while True:
        time.sleep(1000)


@uniflow.task
def raises() -> None:
    raise ValueError("no luck")


@uniflow.workflow
def flow(what: str) -> object:
    if what == "workflow":
        return threading.Lock()
    return globals()[what]()


if __name__ == "__main__":
    uniflow.main(flow)
"""
LINES = {text: number for number, text in enumerate(FLOW.lstrip().splitlines(), 1)}


def run(desk: Desk, what: str) -> Result:
    desk.write("flow.py", FLOW)
    return desk.python("flow.py", "--what", what)


def failed(desk: Desk, result: Result, *words: str, code: int = 1) -> str:
    """What was said; the run and its last attempt have ended, nothing runs, and nothing but the source is a blob."""
    said = result.refused(code, *words)
    (found,) = desk.objects("pipelineruns")
    assert found["status"]["state"] == "Failed"
    assert all(word in found["status"]["errorMessage"] for word in words[:1])
    assert {"Running", "Pending"}.isdisjoint(one["status"]["state"] for one in desk.objects("taskruns"))
    assert len([path for path in (desk.home / "blobs").rglob("*") if path.is_file()]) == 1
    leaves_nothing(desk)
    return said


def leaves_nothing(desk: Desk) -> None:
    assert list((desk.folder / "tmp").iterdir()) == []
    mine = {"MA_HOME": str(desk.home)}
    assert [one.pid for one in psutil.process_iter() if mine.items() <= environment(one).items()] == []


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def log(desk: Desk, task: str) -> bytes:
    paths = [one["status"]["details"]["log"] for one in desk.objects("taskruns") if one["spec"]["task"] == task]
    return Path(desk.home, "logs", paths[-1]).read_bytes()


def test_result_that_no_codec_carries_names_the_task_and_the_path_in_it(desk: Desk) -> None:
    said = failed(
        desk,
        run(desk, "lock"),
        "the result of lock: value['inside'][0]: _thread.lock lives in one process only; return what is in it",
    )
    assert f"flow.py, line {LINES['def lock():'] - 1}, in lock" in said


def test_result_of_a_workflow_that_no_codec_carries_names_its_line(desk: Desk) -> None:
    line = LINES["def flow(what: str) -> object:"] - 1
    failed(desk, run(desk, "workflow"), "the result of workflow flow", f"flow.py, line {line}", "lives in one process")


def test_error_of_a_task_is_shown_with_file_line_and_source(desk: Desk) -> None:
    line = LINES['    raise ValueError("no luck")']
    failed(
        desk, run(desk, "raises"), "task raises: ValueError: no luck", f"flow.py, line {line}, in raises", "raise Val"
    )


def test_hundred_megabytes_of_output_leave_a_bounded_log_with_both_ends(desk: Desk) -> None:
    result = run(desk, "chatty")
    assert (result.code, result.out) == (0, "100\n"), str(result)
    kept = log(desk, "chatty")
    assert len(kept) < (16 << 20) + 200
    assert kept.startswith(b"the first line\n")
    assert kept.endswith(b"the last line\n")
    assert b"bytes of output left out here: over the limit of the log" in kept


def test_processes_that_a_task_leaves_behind_are_ended(desk: Desk) -> None:
    result = run(desk, "family")
    assert (result.code, result.out) == (0, "3\n"), str(result)
    assert [pid for pid in json.loads((desk.folder / "pids").read_text()) if psutil.pid_exists(pid)] == []
    leaves_nothing(desk)


def test_task_that_exits_is_tried_three_times_and_named(desk: Desk) -> None:
    failed(desk, run(desk, "exits"), "(flow.exits) exited with code 7 before it gave a result", "os._exit or the like")
    assert [one["status"]["state"] for one in desk.objects("taskruns")] == ["Lost"] * 3


def test_task_that_crashes_is_named_and_its_line_is_in_the_log(desk: Desk) -> None:
    failed(desk, run(desk, "crashes"), "(flow.crashes) was ended by SIGSEGV before it gave a result")
    kept = log(desk, "crashes").decode()
    assert f'flow.py", line {LINES["    ctypes.string_at(0)"]} in crashes' in kept


def test_task_that_eats_memory_is_stopped_by_its_resident_size(desk: Desk) -> None:
    failed(desk, run(desk, "eats"), "over its limit of 150 MiB, and was ended: raise `memory` in the task's config")


def test_task_that_ignores_sigterm_is_ended_by_its_timeout_and_by_a_kill(tmp_path: Path, desk: Desk) -> None:
    other = Desk(tmp_path / "killed")
    other.folder.mkdir()
    for one in (desk, other):
        one.write("flow.py", FLOW)
    try:
        timed = desk.start(sys.executable, "flow.py", "--what", "stubborn")
        killed = other.start(sys.executable, "flow.py", "--what", "immortal")
        until((other.folder / "pid").exists)
        (found,) = other.objects("pipelineruns")
        name = found["metadata"]["name"]
        ended = other.mactl("pipeline_run", "kill", name, "--yes", "--wait")
        assert (ended.code, ended.out) == (0, f"pipeline_run/{name} killed\n"), str(ended)
        out, err = killed.communicate(timeout=60)
        assert (killed.returncode, out) == (130, ""), err
        assert f"the run {name} was killed" in err
        leaves_nothing(other)
        out, err = timed.communicate(timeout=60)
    finally:
        other.close()
    result = Result(timed.returncode, out, err)
    failed(desk, result, "ran longer than its timeout of 0.5 s and was ended: raise the task's timeout_seconds")
