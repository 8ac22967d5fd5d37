"""Single flight between real processes: `python flow.py` several times on one home, and `kill -9` of who computes.

A task notes each of its executions in a side file and waits for a file `go` before it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from michelangelo.app.platform import Platform
from michelangelo.app.settings import Settings
from michelangelo.client.client import Object
from michelangelo.meta import labels

_DEADLINE_SECONDS = 60.0
PROGRAM = """
import os
import time

from michelangelo import uniflow


@uniflow.task(cache_enabled=True)
def work(name: str) -> str:
    file = os.open("side", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (name + "\\n").encode())
    os.close(file)
    while not os.path.exists("go"):
        time.sleep(0.01)
    return name


@uniflow.workflow
def flow(order: str) -> str:
    return "".join(work(name) for name in order)


if __name__ == "__main__":
    print(uniflow.main(flow))
"""


@dataclass
class Bench:
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.started.append(
            subprocess.Popen(
                [sys.executable, "flow.py", *arguments],
                cwd=self.folder,
                env={**os.environ, "MA_HOME": str(self.folder / "home")},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return self.started[-1]

    @property
    def executions(self) -> list[str]:
        side = self.folder / "side"
        return side.read_text().split() if side.exists() else []

    def go(self) -> None:
        (self.folder / "go").touch()

    def objects(self, kind: str, selector: str = "") -> list[Object]:
        with Platform.open(Settings(home=self.folder / "home")) as platform:
            return list(platform.client.list(kind, namespace="local", label_selector=selector).items)

    def waiting(self) -> list[str]:
        """The runs that wait for another one."""
        return [
            run["metadata"]["name"]
            for run in self.objects("PipelineRun")
            for step in (run.get("status") or {}).get("steps") or ()
            if str(step.get("message")).startswith("waiting for run")
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "flow.py").write_text(PROGRAM)
    made = Bench(tmp_path)
    yield made
    made.go()
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(reached: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not (found := reached()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def result(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=_DEADLINE_SECONDS)
    assert process.returncode == 0, err
    return out.split()[-1]


def test_runs_of_the_same_key_compute_once_and_survive_the_death_of_who_computes(bench: Bench) -> None:
    first = bench.start("--order", "a")
    until(lambda: bench.executions == ["a"])
    others = [bench.start("--order", "a") for _ in range(2)]
    until(lambda: len(bench.waiting()) == 2)
    assert bench.executions == ["a"]
    first.send_signal(signal.SIGKILL)
    until(lambda: bench.executions == ["a", "a"])
    bench.go()
    assert [result(one) for one in others] == ["a", "a"]
    assert bench.executions == ["a", "a"]
    # The one that died goes on, and takes what the others have computed.
    assert result(bench.start("--resume")) == "a"
    assert bench.executions == ["a", "a"]
    assert bench.objects("Lease", labels.CACHE_CLAIM) == []


def test_runs_that_compute_the_same_in_opposite_order_do_not_block_each_other(bench: Bench) -> None:
    runs = [bench.start("--order", "ab"), bench.start("--order", "ba")]
    until(lambda: sorted(bench.executions) == ["a", "b"])
    bench.go()
    assert [result(one) for one in runs] == ["ab", "ba"]
    assert sorted(bench.executions) == ["a", "b"]
    assert bench.objects("Lease", labels.CACHE_CLAIM) == []


def test_run_that_waits_is_resumed_after_its_death(bench: Bench) -> None:
    first = bench.start("--order", "a")
    until(lambda: bench.executions == ["a"])
    second = bench.start("--order", "a")
    (waiting,) = until(bench.waiting)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    resumed = bench.start("--resume", waiting)
    bench.go()
    assert (result(first), result(resumed)) == ("a", "a")
    assert bench.executions == ["a"]
