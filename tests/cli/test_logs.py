"""logs: what tasks printed, of real runs, also while they run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Mactl = Callable[..., Any]

FLOW = """
import sys
from pathlib import Path

from michelangelo import uniflow

GATE = Path(__file__).with_name("gate")


@uniflow.task
def greet(name: str) -> str:
    print(f"hello {name}")
    print("warned", file=sys.stderr)
    return name


@uniflow.task
def hold() -> None:
    print("first", flush=True)
    with GATE.open() as gate:
        gate.read()
    print("second")


@uniflow.workflow
def flow(waits: bool = False) -> None:
    greet("ann")
    if waits:
        hold()


if __name__ == "__main__":
    uniflow.main(flow)
"""


@pytest.fixture
def script(tmp_path: Path, home: Path) -> Path:
    path = tmp_path / "flow.py"
    path.write_text(FLOW)
    return path


@pytest.fixture
def finished_run(script: Path, mactl: Mactl) -> str:
    """The name of a run that has ended."""
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True)
    name: str = mactl("get", "pr", "-o", "name").out.strip().partition("/")[2]
    return name


def test_logs_of_a_run_have_the_tasks_name_in_front(finished_run: str, mactl: Mactl) -> None:
    result = mactl("logs", finished_run)
    assert result.code == 0
    assert sorted(result.out.splitlines()) == ["[greet] hello ann", "[greet] warned"]


def test_logs_of_one_attempt_are_plain(finished_run: str, mactl: Mactl) -> None:
    attempt = mactl("get", "task_run", "-o", "name").out.strip()
    assert "hello ann" in mactl("logs", attempt).out.splitlines()
    assert mactl("logs", attempt.partition("/")[2]).out == mactl("logs", attempt).out


def test_logs_follow_of_an_ended_run_ends(finished_run: str, mactl: Mactl) -> None:
    assert mactl("logs", "-f", finished_run, "--no-prefix", "--task", "greet").out.splitlines()[0] == "hello ann"


def test_logs_of_another_task_are_empty(finished_run: str, mactl: Mactl) -> None:
    result = mactl("logs", finished_run, "--task", "other")
    assert (result.code, result.out) == (0, "")


def test_logs_of_a_missing_run_say_where_to_look(finished_run: str, mactl: Mactl) -> None:
    result = mactl("logs", "run-9")
    assert result.code == 1
    assert "mactl get pr" in result.err


def test_logs_follow_prints_while_the_task_runs(script: Path, mactl: Mactl, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with subprocess.Popen([sys.executable, str(script), "--waits", "true"], stderr=subprocess.PIPE, text=True) as flow:
        assert flow.stderr is not None
        name = flow.stderr.readline().split()[1].rstrip(":")
        # Until the task has ended its first line of progress is the one of `greet`.
        assert "greet" in flow.stderr.readline()
        command = [sys.executable, "-u", "-m", "michelangelo.cli", "logs", "-f", name, "--task", "hold"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as logs:
            assert logs.stdout is not None
            assert logs.stdout.readline() == "[hold] first\n"
            gate.write_text("")
            assert logs.stdout.readline() == "[hold] second\n"
            assert logs.wait(20) == 0
        assert flow.wait(20) == 0
