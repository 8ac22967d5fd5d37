"""A server with its controllers and driver processes: runs that it drives, and runs that it finds."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.app.conftest import until

from michelangelo import errors
from michelangelo.app.platform import Platform
from michelangelo.app.serve import Server
from michelangelo.client import kubeconfig
from michelangelo.client.client import Client, Object
from michelangelo.client.http import HttpClient
from michelangelo.uniflow import source_tree

if TYPE_CHECKING:
    from tests.app.conftest import Desk

_FLOW = """
    import os, pathlib, time
    from michelangelo import uniflow

    @uniflow.task
    def add(one: int, other: int) -> int:
        return one + other

    @uniflow.task
    def gate(folder: str, number: int) -> int:
        pathlib.Path(folder, f"reached-{number}-{os.getpid()}").touch()
        while not pathlib.Path(folder, "open").exists():
            time.sleep(0.01)
        return number

    @uniflow.workflow
    def flow(count: int = 3, folder: str = "") -> int:
        total = 0
        for _ in range(count):
            total = add(total, 1)
        if folder:
            total += gate(folder, total)
        return total

    if __name__ == "__main__":
        uniflow.main(flow)
"""
Serving = Callable[[], contextlib.AbstractContextManager[Client]]
_ENDED = ("Succeeded", "Failed", "Killed")


@pytest.fixture
def flow(desk: Desk) -> Path:
    return desk.write("flow.py", _FLOW)


@pytest.fixture
def serving(desk: Desk) -> Serving:
    """`with serving() as client`: a server on the desk's home, and a client that reached it by its kubeconfig."""

    @contextlib.contextmanager
    def serve() -> Iterator[Client]:
        server = Server(desk.settings)
        server.start()
        client = HttpClient(kubeconfig.load(desk.settings.kubeconfig))
        try:
            yield client
        finally:
            client.close()
            server.stop()

    return serve


def dev_run(
    desk: Desk, client: Client, file: Path, name: str, *, resume: dict[str, Any] | None = None, **kwargs: Any
) -> Object:
    with Platform.open(desk.settings) as platform:
        tree = source_tree.find_source(str(file))
        digest = source_tree.pack_source(tree, platform.blobs).digest
    manifest = {
        "type": "Uniflow",
        "filePath": tree.main,
        "uniflowFunction": "flow",
        "uniflowTar": digest,
        "sourceDigest": digest,
    }
    return client.create(
        {
            "apiVersion": "michelangelo.api/v2",
            "kind": "PipelineRun",
            "metadata": {"name": name, "namespace": "local"},
            "spec": {
                "pipelineSpec": {"manifest": manifest},
                "input": {"kwArgs": kwargs},
                **({"resume": resume} if resume else {}),
            },
        }
    )


def ended(client: Client, name: str) -> Object:
    def status() -> Object | None:
        found: Object = client.get("PipelineRun", name, namespace="local").get("status") or {}
        return found if found.get("state") in _ENDED else None

    found: Object = until(status)
    return found


def test_server_drives_a_run_to_its_end(desk: Desk, flow: Path, serving: Serving) -> None:
    with serving() as client:
        dev_run(desk, client, flow, "run-1", count=4)
        status = ended(client, "run-1")
    assert (status["state"], status["result"]) == ("Succeeded", 4), status


def test_server_says_what_is_wrong_with_arguments(desk: Desk, flow: Path, serving: Serving) -> None:
    with serving() as client:
        dev_run(desk, client, flow, "run-1", count="many", colour="red")
        status = ended(client, "run-1")
    assert (status["state"], status["exceptionType"]) == ("Failed", "User")
    assert "count" in status["errorMessage"]
    assert "colour" in status["errorMessage"]


def test_server_says_why_a_source_does_not_load(desk: Desk, serving: Serving) -> None:
    file = desk.write("flow.py", "from michelangelo import uniflow\nimport no_such_module\n")
    with serving() as client:
        dev_run(desk, client, file, "run-1")
        status = ended(client, "run-1")
    assert status["state"] == "Failed"
    assert "no_such_module" in status["errorMessage"]
    assert "line 2" in status["errorMessage"]


def test_server_continues_an_earlier_run_as_a_new_one(desk: Desk, flow: Path, serving: Serving) -> None:
    with serving() as client:
        dev_run(desk, client, flow, "run-1", count=3)
        ended(client, "run-1")
        dev_run(desk, client, flow, "run-2", count=4, resume={"pipelineRun": {"name": "run-1"}})
        status = ended(client, "run-2")
        assert (status["state"], status["result"]) == ("Succeeded", 4), status
        assert status["stepCounts"] == {"total": 4, "cached": 3, "succeeded": 1}
        dev_run(desk, client, flow, "run-3", resume={"pipelineRun": {"name": "run-1"}, "resumeFrom": ["add"]})
        assert ended(client, "run-3")["stepCounts"] == {"total": 3, "succeeded": 3}
        dev_run(desk, client, flow, "run-4", resume={"pipelineRun": {"name": "run-0"}})
        status = ended(client, "run-4")
    assert status["state"] == "Failed"
    assert "nothing to take over from run run-0" in status["errorMessage"]


def test_server_kills_a_run(desk: Desk, flow: Path, serving: Serving, tmp_path: Path) -> None:
    with serving() as client:
        dev_run(desk, client, flow, "run-1", folder=str(tmp_path))
        reached = until(lambda: list(tmp_path.glob("reached-*")))
        task = psutil.Process(int(reached[0].name.rpartition("-")[2]))
        client.patch("PipelineRun", "run-1", {"spec": {"kill": True}}, namespace="local")
        assert ended(client, "run-1")["state"] == "Killed"
    assert psutil.wait_procs([task], timeout=20.0)[1] == []


def test_next_server_goes_on_with_what_the_last_one_left(
    desk: Desk, flow: Path, serving: Serving, tmp_path: Path
) -> None:
    with serving() as client:
        dev_run(desk, client, flow, "run-1", folder=str(tmp_path))
        until(lambda: list(tmp_path.glob("reached-*")))
    (tmp_path / "open").touch()
    with serving() as client:
        status = ended(client, "run-1")
    assert (status["state"], status["result"]) == ("Succeeded", 6), status


def test_server_takes_over_a_killed_flow(desk: Desk, flow: Path, serving: Serving, tmp_path: Path) -> None:
    process = desk.start(flow, "--folder", str(tmp_path))
    until(lambda: list(tmp_path.glob("reached-*")))
    process.kill()
    process.wait()
    (tmp_path / "open").touch()
    with serving() as client:
        name = client.list("PipelineRun", namespace="local").items[0]["metadata"]["name"]
        status = ended(client, name)
    assert (status["state"], status["result"]) == ("Succeeded", 6), status


def test_server_leaves_a_living_flow_alone(desk: Desk, flow: Path, serving: Serving, tmp_path: Path) -> None:
    process = desk.start(flow, "--folder", str(tmp_path))
    until(lambda: list(tmp_path.glob("reached-*")))
    with serving() as client:
        dev_run(desk, client, flow, "run-1")
        assert ended(client, "run-1")["state"] == "Succeeded"
        (tmp_path / "open").touch()
        assert process.communicate(timeout=60.0)[0] == "6\n"
    assert len(list(tmp_path.glob("reached-*"))) == 1


def test_port_in_use_is_a_clear_error(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.SettingsError, match=str(port)):
            Server(type(desk.settings)(home=desk.home, port=port))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "driver"])
def test_run_survives_the_death_of(desk: Desk, flow: Path, tmp_path: Path, victim: str) -> None:
    """`mactl serve` as a process, killed with SIGKILL; its driver goes on, or another takes its place."""

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, "MA_HOME": str(desk.home), "MA_PORT": "0", "MA_LEASE_SECONDS": "2"}
        process = subprocess.Popen(
            [sys.executable, "-m", "michelangelo.cli", "serve"], env=environment, stdout=subprocess.PIPE, text=True
        )
        desk.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("serving https://")
        return process

    server = start()
    client = HttpClient(kubeconfig.load(desk.settings.kubeconfig))
    dev_run(desk, client, flow, "run-1", folder=str(tmp_path))
    until(lambda: list(tmp_path.glob("reached-*")))
    drivers = [one for one in psutil.Process(server.pid).children() if "michelangelo.app.driver" in one.cmdline()]
    if victim == "server":
        server.kill()
        server.wait()
        server = start()
    else:
        drivers[0].kill()
    (tmp_path / "open").touch()
    client.close()
    client = HttpClient(kubeconfig.load(desk.settings.kubeconfig))
    assert ended(client, "run-1")["result"] == 6
    client.close()
    server.send_signal(signal.SIGTERM)
    assert server.wait(30.0) == 0
    assert psutil.wait_procs(drivers, timeout=20.0)[1] == []
