"""`python flow.py`, as people use it: results, errors, resuming, interruption, several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.app.conftest import until

if TYPE_CHECKING:
    from tests.app.conftest import Desk

_FLOW = """
    import os, pathlib, time
    from michelangelo import uniflow

    @uniflow.task
    def add(one: int, other: int) -> int:
        print("adding", one, other)
        return one + other

    @uniflow.task
    def gate(folder: str, number: int) -> int:
        pathlib.Path(folder, f"reached-{number}-{os.getpid()}").touch()
        while not pathlib.Path(folder, "open").exists():
            time.sleep(0.01)
        return number

    @uniflow.task
    def fail(text: str) -> None:
        raise ValueError(text)

    @uniflow.workflow
    def flow(count: int = 3, folder: str = "", broken: bool = False) -> int:
        total = 0
        for _ in range(count):
            total = add(total, 1)
        if folder:
            total += gate(folder, total)
        if broken:
            fail("no luck")
        return total

    if __name__ == "__main__":
        uniflow.main(flow)
"""


@pytest.fixture
def flow(desk: Desk) -> Path:
    return desk.write("flow.py", _FLOW)


def _reached(folder: Path) -> list[Path]:
    return list(folder.glob("reached-*"))


def _descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_flow_prints_its_result_and_its_progress(desk: Desk, flow: Path) -> None:
    code, out, err = desk.run(flow, "--count", "4")
    assert (code, out) == (0, "4\n")
    assert err.count("add: succeeded") == 4
    (run,) = desk.runs()
    assert (run["status"]["state"], run["status"]["result"]) == ("Succeeded", 4)
    assert run["metadata"]["namespace"] == "local"


def test_flow_keeps_what_tasks_print(desk: Desk, flow: Path) -> None:
    desk.run(flow, "--count", "1")
    (task_run,) = desk.task_runs()
    log = desk.home / "logs" / task_run["status"]["details"]["log"]
    assert "adding 0 1" in log.read_text()


def test_flow_that_fails_exits_1_and_names_the_line(desk: Desk, flow: Path) -> None:
    code, out, err = desk.run(flow, "--broken", "true")
    assert (code, out) == (1, "")
    assert "ValueError: no luck" in err
    assert f"{flow}, line" in err
    assert "raise ValueError(text)" in err
    # The progress has told it; it is not told a second time.
    assert not any(line.startswith("error:") for line in err.splitlines())


def test_flow_with_wrong_arguments_starts_nothing(desk: Desk, flow: Path) -> None:
    code, _, err = desk.run(flow, "--count", "many")
    assert code == 2
    assert "count" in err
    assert not desk.home.exists()


def test_flow_with_a_wrong_setting_says_which(desk: Desk, flow: Path) -> None:
    code, _, err = desk.run(flow, MA_TASK_SLOTS="some")
    assert code == 2
    assert "MA_TASK_SLOTS='some'" in err


def test_ephemeral_flow_keeps_nothing(desk: Desk, flow: Path) -> None:
    code, out, _ = desk.run(flow, "--ephemeral")
    assert (code, out) == (0, "3\n")
    assert not desk.home.exists()
    assert list(desk.temporary.iterdir()) == []


def test_flow_goes_on_when_nobody_reads_its_progress(desk: Desk, flow: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, str(flow)],
        env={**os.environ, "MA_HOME": str(desk.home)},
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
    )
    os.close(writer)
    desk.started.append(process)
    assert process.communicate(timeout=60.0)[0] == "3\n"
    assert desk.runs()[0]["status"]["state"] == "Succeeded"


def test_killed_flow_is_resumed(desk: Desk, flow: Path, tmp_path: Path) -> None:
    process = desk.start(flow, "--folder", str(tmp_path))
    until(lambda: _reached(tmp_path))
    left = _descendants(process)
    process.kill()
    process.wait()
    assert psutil.wait_procs(left, timeout=20.0)[1] == [], "tasks and zygote end with their driver"
    (tmp_path / "open").touch()
    code, out, err = desk.run(flow, "--resume")
    assert (code, out) == (0, "6\n"), err
    assert err.count("add: succeeded") == 0
    assert len(desk.runs()) == 1


def test_interrupted_flow_says_how_to_go_on_and_leaves_no_process(desk: Desk, flow: Path, tmp_path: Path) -> None:
    process = desk.start(flow, "--folder", str(tmp_path))
    until(lambda: _reached(tmp_path))
    left = _descendants(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30.0)
    assert process.returncode == 130
    assert psutil.wait_procs(left, timeout=20.0)[1] == []
    (run,) = desk.runs()
    assert f"--resume {run['metadata']['name']}" in err
    assert run["status"]["state"] == "Killed"
    (tmp_path / "open").touch()
    code, out, err = desk.run(flow, "--resume", run["metadata"]["name"])
    assert (code, out) == (0, "6\n"), err


def test_resume_refuses_changed_code_unless_forced(desk: Desk, flow: Path, tmp_path: Path) -> None:
    process = desk.start(flow, "--folder", str(tmp_path))
    until(lambda: _reached(tmp_path))
    process.kill()
    process.wait()
    (tmp_path / "open").touch()
    text = flow.read_text()
    flow.write_text(text.replace("return one + other", "return other + one"))
    code, _, err = desk.run(flow, "--resume")
    assert code == 1
    assert "the code has changed" in err
    code, out, err = desk.run(flow, "--resume", "--force")
    assert (code, out) == (0, "6\n"), err


def test_resume_says_when_there_is_nothing_to_resume(desk: Desk, flow: Path) -> None:
    desk.run(flow)
    code, _, err = desk.run(flow, "--resume")
    assert code == 1
    assert "no run of the workflow flow in project local is unfinished" in err
    code, _, err = desk.run(flow, "--resume", desk.runs()[0]["metadata"]["name"])
    assert code == 1
    assert "has ended (Succeeded)" in err


def test_two_flows_on_one_home_do_not_disturb_each_other(desk: Desk, flow: Path) -> None:
    processes = [desk.start(flow, "--count", str(count)) for count in (6, 7)]
    outputs = [process.communicate(timeout=60.0)[0] for process in processes]
    assert outputs == ["6\n", "7\n"]
    assert {run["status"]["state"] for run in desk.runs()} == {"Succeeded"}


def test_flow_that_lives_is_not_taken_over(desk: Desk, flow: Path, tmp_path: Path) -> None:
    process = desk.start(flow, "--folder", str(tmp_path), MA_LEASE_SECONDS="2")
    until(lambda: _reached(tmp_path))
    code, _, err = desk.run(flow, "--resume", MA_LEASE_SECONDS="2")
    assert code == 1
    assert "is being driven by another process" in err
    (tmp_path / "open").touch()
    assert process.communicate(timeout=30.0)[0] == "6\n"


def test_stopped_driver_that_was_taken_over_writes_nothing_when_it_goes_on(
    desk: Desk, flow: Path, tmp_path: Path
) -> None:
    process = desk.start(flow, "--folder", str(tmp_path), MA_LEASE_SECONDS="1")
    until(lambda: _reached(tmp_path))
    process.send_signal(signal.SIGSTOP)
    (tmp_path / "open").touch()
    code, out, err = desk.run(flow, "--resume", MA_LEASE_SECONDS="1")
    assert (code, out) == (0, "6\n"), err
    before = (desk.runs(), desk.task_runs())
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=30.0)
    assert process.returncode == 1
    assert "lease" in err or "taken over" in err
    assert (desk.runs(), desk.task_runs()) == before
