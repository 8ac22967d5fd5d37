"""`mactl serve` as a process of its own, and runs on it from the first word to the last."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

DEADLINE_SECONDS = 60

FLOW = """
from michelangelo import uniflow


@uniflow.task
def double(n: int) -> int:
    print("doubling", n)
    return 2 * n


@uniflow.task
def fail() -> None:
    raise ValueError("no luck")


@uniflow.workflow
def flow(n: int = 3) -> int:
    return double(n)


@uniflow.workflow
def failing() -> None:
    fail()


@uniflow.workflow
def approved() -> str:
    return uniflow.wait_for_signal("approval")["by"]
"""

PIPELINE = """
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {name: flow, namespace: local}
spec:
  manifest: {filePath: flow.py, uniflowFunction: flow}
"""


@dataclass(frozen=True)
class Served:
    """A server process, its home, and a folder with a workflow."""

    process: subprocess.Popen[str]
    home: Path
    folder: Path
    url: str

    def mactl(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "michelangelo.cli", *words]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=_environment(self.home),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def start_run(self, function: str) -> str:
        """The name of a new run."""
        result = self.mactl("pipeline", "dev-run", f"flow.py:{function}", "-o", "name")
        assert result.returncode == 0, result.stderr
        return result.stdout.strip().partition("/")[2]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with _serve(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """A server that a test may end."""
    with _serve(tmp_path) as made:
        yield made


class _serve:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Served:
        home = self._folder / "home"
        (self._folder / "flow.py").write_text(FLOW)
        (self._folder / "pipeline.yaml").write_text(PIPELINE)
        command = [sys.executable, "-u", "-m", "michelangelo.cli", "serve", "--port", "0"]
        self._process = subprocess.Popen(command, env=_environment(home), stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        match = re.fullmatch(r"serving (https://127\.0\.0\.1:\d+) from .*\n", line)
        assert match, line
        return Served(self._process, home, self._folder, match.group(1))

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=DEADLINE_SECONDS)


def _environment(home: Path) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MA_")}
    return inherited | {"MA_HOME": str(home), "MA_LEASE_SECONDS": "2"}


def test_dev_run_waits_for_its_result(served: Served) -> None:
    result = served.mactl("pipeline", "dev-run", "flow.py:flow", "--arg", "n=21", "--wait")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "42"
    assert "double" in result.stderr


def test_registered_pipeline_runs_with_checked_arguments(served: Served) -> None:
    assert served.mactl("pipeline", "apply", "-f", "pipeline.yaml").returncode == 0
    ready = served.mactl("wait", "pipeline/flow", "--for=jsonpath={.status.state}=Ready")
    assert ready.returncode == 0, ready.stderr
    result = served.mactl("pipeline", "run", "flow", "--arg", "n=5", "--wait", "-o", "json")
    assert result.returncode == 0, result.stderr
    run = json.loads(result.stdout)
    assert (run["status"]["state"], run["status"]["result"]) == ("Succeeded", 10)
    assert served.mactl("pipeline", "run", "flow", "--arg", "n=x").returncode == 2


def test_failed_run_shows_the_users_line_and_fails(served: Served) -> None:
    result = served.mactl("pipeline", "dev-run", "flow.py:failing", "--wait")
    assert result.returncode == 1
    assert "no luck" in result.stderr
    assert "flow.py" in result.stderr


def test_logs_come_through_the_server(served: Served) -> None:
    name = served.start_run("flow")
    assert served.mactl("logs", "-f", name).stdout.splitlines() == ["[double] doubling 3"]


def test_kill_ends_a_waiting_run(served: Served) -> None:
    name = served.start_run("approved")
    result = served.mactl("pipeline_run", "kill", name, "--yes", "--wait")
    assert result.stdout == f"pipeline_run/{name} killed\n", result.stderr
    assert json.loads(served.mactl("get", f"pr/{name}", "-o", "json").stdout)["status"]["state"] == "Killed"


def test_signal_lets_a_waiting_run_go_on(served: Served) -> None:
    name = served.start_run("approved")
    sent = served.mactl("pipeline_run", "signal", name, "approval", "--payload", '{"by": "ann"}')
    assert sent.returncode == 0, sent.stderr
    done = served.mactl("wait", f"pr/{name}", "--for=state=Succeeded")
    assert done.returncode == 0, done.stderr
    assert json.loads(served.mactl("get", f"pr/{name}", "-o", "json").stdout)["status"]["result"] == "ann"


def test_serve_keeps_its_secrets_to_its_owner(served: Served) -> None:
    assert stat.S_IMODE(served.home.stat().st_mode) == 0o700
    for name in ("token", "kubeconfig"):
        assert stat.S_IMODE((served.home / name).stat().st_mode) == 0o600


def test_serve_on_a_port_in_use_says_so(served: Served, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    command = [sys.executable, "-m", "michelangelo.cli", "serve", "--port", port]
    result = subprocess.run(command, env=_environment(tmp_path), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"port {port}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_serve_refuses_to_be_reached_by_others(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "michelangelo.cli", "serve", "--host", "0.0.0.0", "--port", "0"]
    result = subprocess.run(command, env=_environment(tmp_path), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "other machines" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_server_leaves_no_process(fresh: Served, number: signal.Signals) -> None:
    name = fresh.start_run("approved")
    running = fresh.mactl("wait", f"pr/{name}", "--for=state=Running")
    assert running.returncode == 0, running.stderr
    children = psutil.Process(fresh.process.pid).children(recursive=True)
    assert children
    fresh.process.send_signal(number)
    assert fresh.process.wait(DEADLINE_SECONDS) == 0
    gone, alive = psutil.wait_procs(children, DEADLINE_SECONDS)
    assert (len(gone), alive) == (len(children), [])


def test_run_goes_on_under_the_next_server(fresh: Served) -> None:
    name = fresh.start_run("approved")
    fresh.mactl("wait", f"pr/{name}", "--for=state=Running")
    fresh.process.send_signal(signal.SIGKILL)
    fresh.process.wait(DEADLINE_SECONDS)
    with _serve(fresh.folder) as again:
        again.mactl("pipeline_run", "signal", name, "approval", "--payload", '{"by": "bob"}')
        done = again.mactl("wait", f"pr/{name}", "--for=state=Succeeded", "--timeout=50s")
        assert done.returncode == 0, done.stderr


def test_embedded_platform_reads_what_the_server_wrote(fresh: Served) -> None:
    name = fresh.start_run("flow")
    fresh.process.terminate()
    fresh.process.wait(DEADLINE_SECONDS)
    assert fresh.mactl("get", "pr", "-o", "name").stdout == f"pipeline_run/{name}\n"
