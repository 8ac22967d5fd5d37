"""`mactl sandbox`: made, filled, stopped and removed, as processes of their own; and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.upstream.conftest import until

from michelangelo.app import sandbox_server
from michelangelo.runtime import processes
from michelangelo.runtime.processes import Identity

if TYPE_CHECKING:
    from tests.upstream.conftest import Workshop


@pytest.fixture
def desk(workshop: Workshop) -> Iterator[Workshop]:
    """A home whose sandbox is removed at the end."""
    yield workshop
    workshop.mactl("sandbox", "delete", "--yes")


def record(desk: Workshop) -> dict[str, str]:
    found: dict[str, str] = json.loads((desk.home / "sandbox" / "server.json").read_text())
    return found


def test_sandbox_is_made_filled_used_and_removed(desk: Workshop) -> None:
    assert "sandbox created: https://127.0.0.1:" in desk.mactl("sandbox", "create", "--wait-timeout", "60")
    assert "sandbox is there" in desk.mactl("sandbox", "create")
    out = desk.mactl("sandbox", "demo")
    assert '"best": {"noise": 0.1, "slope": 2.99' in out
    states = desk.mactl("get", "pipeline_run", "-n", "ma-dev-test", "-o", "json")
    runs = json.loads(states)["items"]
    assert sorted(run["status"]["state"] for run in runs) == ["Succeeded", "Succeeded"]
    [child] = [run for run in runs if "michelangelo/parent-run" in (run["metadata"].get("labels") or {})]
    assert child["spec"]["pipeline"]["name"] == "training-pipeline"
    assert child["metadata"]["annotations"]["michelangelo/SpecUpdateTimestamp"]
    pipeline = json.loads(desk.mactl("get", "pipeline", "training-pipeline", "-n", "ma-dev-test", "-o", "json"))
    assert pipeline["metadata"]["annotations"]["michelangelo/uniflow-image"] == "examples:latest"
    assert pipeline["spec"]["type"] == "Train"

    # A context of upstream's form, submitted to the server of the sandbox.
    desk.mactl("pipeline", "apply", "-f", "examples/churn/pipeline.yaml")
    out = desk.run("retrain.py", "remote-run", "--yes", "--image", "x:1", "--project", "ma-dev-test", "--wait")
    assert '"ma-dev-test PIPELINE_RUN_STATE_SUCCEEDED"' in out

    assert desk.mactl("sandbox", "stop") == "sandbox stopped\n"
    assert desk.mactl("sandbox", "stop") == "no sandbox runs\n"
    assert desk.mactl("sandbox", "status").startswith("stopped, in ")
    assert "sandbox runs: https://127.0.0.1:" in desk.mactl("sandbox", "start")
    assert "training-pipeline" in desk.mactl("get", "pipeline", "-n", "ma-dev-test")
    assert desk.mactl("sandbox", "delete", "--yes") == "sandbox deleted\n"
    assert not (desk.home / "sandbox").exists()
    assert "sandbox" not in (desk.home / "contexts.yaml").read_text()
    assert desk.mactl("sandbox", "status") == "no sandbox\n"


def test_flags_without_a_meaning_are_answered_with_a_note(desk: Workshop) -> None:
    process = desk.start("-m", "michelangelo.cli", "sandbox", "create", "--exclude", "ui", "--workflow", "temporal")
    _, err = process.communicate(timeout=60)
    assert "--exclude is ignored: the sandbox is one process" in err
    assert "--workflow is ignored: there is one engine" in err


def test_killed_server_is_started_again_and_its_record_is_worth_nothing(desk: Workshop) -> None:
    desk.mactl("sandbox", "create")
    identity = Identity.parse(record(desk)["identity"])
    assert identity is not None
    os.kill(identity.pid, signal.SIGKILL)
    until(lambda: not identity.is_provably_alive)
    assert desk.mactl("sandbox", "status").startswith("stopped, in ")
    desk.mactl("sandbox", "start")
    assert desk.mactl("sandbox", "status").startswith("running: ")


def test_process_that_only_has_the_id_of_the_server_is_left_alone(desk: Workshop) -> None:
    desk.mactl("sandbox", "create")
    desk.mactl("sandbox", "stop")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        own = _identity_of(stranger.pid, started="1")
        path = desk.home / "sandbox" / sandbox_server.RECORD
        path.write_text(json.dumps({"identity": str(own), "url": "https://127.0.0.1:1", "kubeconfig": ""}))
        assert desk.mactl("sandbox", "stop") == "no sandbox runs\n"
        # Even where something holds the lock.
        with (desk.home / "sandbox" / sandbox_server.LOCK).open("a") as lock:
            holder = subprocess.Popen(
                [sys.executable, "-c", f"import fcntl; fcntl.flock({lock.fileno()}, fcntl.LOCK_EX); print(1); input()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(lock.fileno(),),
            )
        assert holder.stdout is not None
        assert holder.stdout.readline()
        assert "cannot be told" in desk.fail("-m", "michelangelo.cli", "sandbox", "stop")
        assert psutil.pid_exists(stranger.pid)
        assert stranger.poll() is None
        holder.communicate(b"\n", timeout=30)
        stranger.communicate(b"\n", timeout=30)


def test_folder_that_it_did_not_make_is_never_removed(workshop: Workshop) -> None:
    precious = workshop.home / "sandbox" / "precious"
    precious.mkdir(parents=True)
    for words in (["create"], ["delete", "--yes"]):
        assert "is no sandbox" in workshop.fail("-m", "michelangelo.cli", "sandbox", *words)
    assert precious.is_dir()


def test_delete_asks_first(desk: Workshop) -> None:
    desk.mactl("sandbox", "create")
    desk.fail("-m", "michelangelo.cli", "sandbox", "delete")
    assert desk.mactl("sandbox", "status").startswith("running: ")


def test_start_needs_a_sandbox(workshop: Workshop) -> None:
    assert "make one: `ma sandbox create`" in workshop.fail("-m", "michelangelo.cli", "sandbox", "start")
    assert "nothing to serve models with yet" in workshop.fail("-m", "michelangelo.cli", "sandbox", "demo", "inference")


def _identity_of(pid: int, *, started: str) -> Identity:
    own = processes.of_this_process()
    return Identity(own.host, own.boot, pid, started, own.nonce)
