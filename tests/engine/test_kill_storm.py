"""Random workflows under `kill -9` of tasks, zygotes and drivers end as if nothing had happened.

Everything is real: `python program.py` on a home of its own, killed at random instants and resumed. What has to hold
afterwards: the result of an undisturbed run; no execution of a step after its recorded end; no attempt executed twice;
no process, lease or temporary file left. A seed that fails is in the test's name; MICHELANGELO_TEST_SEED=<n> runs only
it.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.engine import programs

from michelangelo.app.platform import Platform
from michelangelo.app.settings import Settings
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.client.client import Client, Object
from michelangelo.meta import labels

_DEADLINE_SECONDS = 90.0
_MAX_KILLS = 5
_PROJECT = "local"
_PROBE = re.compile(r"[a-z0-9_]{8}")
"""What tempfile makes and removes at once, to see whether a folder can be written; a kill may fall in between."""


def _seeds() -> list[Any]:
    chosen = os.environ.get("MICHELANGELO_TEST_SEED")
    if chosen:
        return [int(chosen)]
    return [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 210))]


@dataclass
class Storm:
    """One program on one home."""

    program: programs.Program
    folder: Path
    client: Client
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    processes: set[int] = field(default_factory=set)
    """All that were ever seen."""
    signalled: bool = False
    died_finished: bool = False

    @property
    def run(self) -> Object | None:
        listed = self.client.list("PipelineRun", namespace=_PROJECT).items
        assert len(listed) <= 1
        return listed[0] if listed else None

    def launch(self) -> subprocess.Popen[str]:
        arguments = ["--resume"] if self.run else []
        environment = {
            **os.environ,
            "MA_HOME": str(self.folder / "home"),
            "MICHELANGELO_TEST_SIDE": str(self.folder / "side"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        return subprocess.Popen(
            [sys.executable, str(self.folder / "program.py"), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send_signals(self) -> None:
        """As soon as there is a run, once."""
        run = self.run
        if run is None or self.signalled:
            return
        self.signalled = True
        for payload in self.program.signals:
            self.client.create(
                {
                    "apiVersion": "michelangelo.api/v2",
                    "kind": "Signal",
                    "metadata": {
                        "generateName": "go-",
                        "namespace": _PROJECT,
                        "labels": {labels.PIPELINE_RUN: run["metadata"]["name"], labels.SIGNAL: "go"},
                    },
                    "spec": {"pipelineRun": run["metadata"]["name"], "name": "go", "payload": payload},
                }
            )

    def may_kill(self) -> bool:
        """A step that was lost twice would use up its budget at the third time."""
        losses = Counter(
            one["spec"]["step"]
            for one in self.client.list("TaskRun", namespace=_PROJECT).items
            if one["status"]["state"] in ("Lost", "Running")
        )
        return sum(self.kills.values()) < _MAX_KILLS and max(losses.values(), default=0) < 2

    def kill_something(self, driver: psutil.Process) -> str:
        """SIGKILL to a process of a random kind; returns which kind it was."""
        try:
            zygotes = driver.children()
            found = driver.children(recursive=True)
            self.processes.update(one.pid for one in found)
            kind = self.chance.choice(["driver", "driver", "zygote", "task", "task"])
            tasks = [one for one in found if one not in zygotes]
            victims = {"driver": [driver], "zygote": zygotes, "task": tasks}[kind]
            if not victims:
                return "none"
            self.chance.choice(victims).kill()
        except psutil.NoSuchProcess:
            return "none"
        self.kills[kind] += 1
        return kind


def _weather(storm: Storm) -> str:
    """Launch and kill until a driver gets through; its output."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while True:
        process = storm.launch()
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            assert time.monotonic() < deadline, f"seed {storm.program.seed} hangs: {storm.kills}"
            try:
                process.wait(storm.chance.uniform(0.05, 0.4))
            except subprocess.TimeoutExpired:
                storm.send_signals()
                if storm.may_kill():
                    storm.kill_something(driver)
        out, err = process.communicate()
        if process.returncode == 0:
            return out
        assert process.returncode == -9, f"seed {storm.program.seed}, {storm.kills}:\n{err}"
        run = storm.run
        if run is not None and (run.get("status") or {}).get("state") == "Succeeded":
            # Killed after the last write: there is nothing to resume, and nobody who tidies up after it.
            storm.died_finished = True
            return f"{run['status']['result']}\n"


def _undisturbed(program: programs.Program, folder: Path) -> str:
    """The result, from plain Python: outside of a run a task is a call of its function."""
    code = (
        "import sys, types\n"
        "from michelangelo import uniflow\n"
        f"values = iter({list(program.signals)!r})\n"
        "uniflow.wait_for_signal = lambda name: next(values)\n"
        "from michelangelo.uniflow.workflow import Workflow\n"
        "Workflow.__call__ = lambda self, *args, **kwargs: self.fn(*args, **kwargs)\n"
        "import program\n"
        "print(program.flow())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="storm-") as made:
        yield Path(made)


@pytest.mark.parametrize("seed", _seeds())
def test_random_workflow_survives_any_kills(seed: int, folder: Path) -> None:
    program = programs.generate(seed)
    (folder / "program.py").write_text(program.source)
    (folder / "tmp").mkdir()
    expected = _undisturbed(program, folder)
    with Platform.open(Settings(home=folder / "home")) as platform:
        storm = Storm(program, folder, platform.client, random.Random(seed))
        out = _weather(storm)
        assert out == expected, f"seed {seed}, {storm.kills}"
        _check_journal(storm)
        if not storm.died_finished:
            assert platform.client.list("Lease", namespace=_PROJECT).items == []
    _check_no_process_is_left(storm)
    if not storm.died_finished:
        assert [path for path in (folder / "tmp").iterdir() if not _PROBE.fullmatch(path.name)] == []
        _check_no_half_written_blob_stays(folder / "home" / "blobs")


def _check_journal(storm: Storm) -> None:
    run = storm.run
    assert run is not None
    assert run["status"]["state"] == "Succeeded"
    attempts: dict[str, list[Object]] = {}
    for one in storm.client.list("TaskRun", namespace=_PROJECT).items:
        attempts.setdefault(one["spec"]["step"], []).append(one)
    executed = Counter((storm.folder / "side").read_text().split()) if (storm.folder / "side").exists() else Counter()
    known = set()
    completions = []
    for step, found in attempts.items():
        found.sort(key=lambda one: int(one["spec"]["attempt"]))
        final = [one for one in found if one["status"].get("final")]
        assert final == found[-1:], f"{step}: its one final attempt is its last"
        completions.append(final[0]["status"]["completion"])
        known |= {one["metadata"]["name"] for one in found}
    assert sorted(completions) == list(range(1, len(completions) + 1))
    assert set(executed) <= known, "nothing ran that was not recorded before"
    assert all(number == 1 for number in executed.values()), "no attempt ran twice"


def _check_no_half_written_blob_stays(folder: Path) -> None:
    """No process is left: what is there is of writers that were killed in the middle, and goes with a collection."""
    LocalBlobStore(folder).remove_stale(untouched_since=time.time() + 60.0)
    assert list((folder / "tmp").iterdir()) == []


def _check_no_process_is_left(storm: Storm) -> None:
    deadline = time.monotonic() + 10.0
    while left := [pid for pid in storm.processes if psutil.pid_exists(pid) and _is_of(pid, storm.folder)]:
        assert time.monotonic() < deadline, left
        psutil.wait_procs([psutil.Process(pid) for pid in left], timeout=1.0)


def _is_of(pid: int, folder: Path) -> bool:
    try:
        return psutil.Process(pid).environ().get("MA_HOME", "").startswith(str(folder))
    except psutil.Error:
        return False
