"""What only Ray can do: lose workers, its head, a node, its driver; make attempts wait; not start at all."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executors.conftest import Bench, blobs_url, until
from tests.executors.test_process import family_of, is_running, marked

from michelangelo import errors
from michelangelo.executors import processes
from michelangelo.executors.base import AttemptState, Outcome, Resources, SecretValue
from michelangelo.executors.ray.executor import RayExecutor
from michelangelo.executors.ray.session import Terms

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

MODULE = """
import os, signal, sys, time

def where(path, released):
    with open(path + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".part", path)
    while not os.path.exists(released):
        time.sleep(0.005)
    return "released"

def disturb(folder):
    os.environ["MA_TEST_LEFT"] = "here"
    os.environ["PATH"] = "/nowhere"
    os.chdir(folder)

def look():
    return [os.environ.get("MA_TEST_LEFT"), os.environ["PATH"], os.getcwd()]

def tidy(started, tidied):
    try:
        open(started, "w").close()
        time.sleep(600)
    finally:
        open(tidied, "w").close()

def tell(name):
    print("the word is", os.environ[name])

def fail():
    raise ValueError("look at me")

def folder():
    return os.getcwd()

def is_initialized():
    import ray
    return ray.is_initialized()

def data():
    import ray
    return ray.data.range(100).map(lambda row: {"id": row["id"] * 2}).sum("id")

def train(folder):
    import ray.train
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    def loop():
        import torch.distributed
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        open(os.path.join(folder, f"{rank}-of-{world}"), "w").close()
    trainer = TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=2), run_config=RunConfig(storage_path=folder))
    trainer.fit()
    return sorted(name for name in os.listdir(folder) if "-of-" in name)
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / f"ray_{os.urandom(4).hex()}.py"
    path.write_text(MODULE)
    return path


def error_of(outcome: Outcome) -> str:
    assert outcome.error is not None
    return str(outcome.error["message"])


def pid_in(path: Path) -> int:
    until(path.exists)
    return int(path.read_text())


def folders_of(run_id: str) -> list[str]:
    """The folders of the local Rays of a run."""
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:10]
    return glob.glob(f"{tempfile.gettempdir()}/ma-ray-{digest}-*")


def daemon(name: str) -> int:
    """The process id of one of Ray's own processes below this one."""
    below = processes.tree(os.getpid())
    return next(pid for pid in below if Path(f"/proc/{pid}/comm").read_text().strip() == name)


def test_ray_is_ready_inside_an_attempt(ray_bench: Bench, module: Path) -> None:
    assert ray_bench.run("is_initialized", module=module).output is True


@pytest.mark.parametrize(("function", "args"), [("exit_now", (3,)), ("crash", ()), ("kill_self", ())])
def test_worker_that_ends_without_result_is_lost(ray_bench: Bench, function: str, args: tuple[object, ...]) -> None:
    outcome = ray_bench.run(function, *args)
    assert outcome.state is AttemptState.LOST
    assert f"({ray_bench.module.stem}.{function})" in error_of(outcome)
    assert ray_bench.run("add", 1, 1).output == 2


def test_log_of_a_crash_in_ray_says_in_which_line(ray_bench: Bench) -> None:
    attempt = ray_bench.submit("crash")
    ray_bench.outcome(attempt)
    assert f'File "{ray_bench.module}"' in ray_bench.log(attempt).read_text()


def test_memory_over_the_limit_is_stopped_in_ray(ray_bench: Bench) -> None:
    outcome = ray_bench.run("hog", "", memory_bytes=512 << 20)
    assert outcome.state is AttemptState.OUT_OF_MEMORY
    assert "over its limit of 512 MiB" in error_of(outcome)
    assert outcome.max_rss_bytes > 512 << 20


def test_cancel_asks_first(ray_bench: Bench, module: Path) -> None:
    started, tidied = ray_bench.file("started"), ray_bench.file("tidied")
    attempt = ray_bench.submit("tidy", str(started), str(tidied), module=module)
    until(started.exists)
    ray_bench.executor.cancel(attempt, grace_seconds=60)
    assert ray_bench.outcome(attempt).state is AttemptState.KILLED
    assert tidied.exists()


@pytest.mark.parametrize("detached", [False, True])
def test_cancel_ends_the_whole_tree_in_ray(ray_bench: Bench, detached: bool) -> None:
    attempt, pids = family_of(ray_bench, detached=detached, wait=True)
    ray_bench.executor.cancel(attempt, grace_seconds=0)
    assert ray_bench.outcome(attempt).state is AttemptState.KILLED
    until(lambda: not any(map(is_running, pids)))


@pytest.mark.parametrize("detached", [False, True])
def test_end_of_an_attempt_in_ray_ends_what_it_left(ray_bench: Bench, detached: bool) -> None:
    attempt, pids = family_of(ray_bench, detached=detached, wait=False)
    assert ray_bench.outcome(attempt).output == "parent done"
    until(lambda: not any(map(is_running, pids)))


def test_kill_of_a_worker_loses_its_attempt_and_all_it_started(ray_bench: Bench) -> None:
    attempt, pids = family_of(ray_bench, detached=True, wait=True)
    worker = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    assert ray_bench.outcome(attempt).state is AttemptState.LOST
    until(lambda: not any(map(is_running, pids)))


def test_worker_is_as_before_after_an_attempt(ray_bench: Bench, module: Path) -> None:
    before = ray_bench.run("look", module=module).output
    ray_bench.run("disturb", str(ray_bench.folder), module=module)
    assert ray_bench.run("look", module=module).output == before


def test_working_directory_holds_in_ray(ray_bench: Bench, module: Path) -> None:
    outcome = ray_bench.run("folder", module=module, working_directory=str(ray_bench.folder))
    assert outcome.output == str(ray_bench.folder)
    outcome = ray_bench.run("folder", module=module, working_directory="/no/such/folder")
    assert outcome.state is AttemptState.FAILED
    assert "/no/such/folder" in error_of(outcome)


def test_secret_is_not_in_the_log(ray_bench: Bench, module: Path) -> None:
    attempt = ray_bench.submit(
        "tell", "MA_TEST_WORD", module=module, secrets=(SecretValue("MA_TEST_WORD", "xyzzy-42"),)
    )
    assert ray_bench.outcome(attempt).state is AttemptState.SUCCEEDED
    assert ray_bench.log(attempt).read_text() == "the word is ***\n"


def test_runtime_env_reaches_the_function(ray_bench: Bench) -> None:
    outcome = ray_bench.run("environment", "MA_TEST_ENV", config={"runtime_env": {"env_vars": {"MA_TEST_ENV": "set"}}})
    assert outcome.output == "set"


def test_working_folder_of_the_runtime_env_is_carried_along(ray_bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_text("carried")
    outcome = ray_bench.run("content", "given.txt", config={"runtime_env": {"working_dir": str(tmp_path)}})
    assert outcome.output == "carried"
    outcome = ray_bench.run("content", "given.txt", config={"runtime_env": {"working_dir": str(tmp_path / "none")}})
    assert outcome.state is AttemptState.FAILED
    assert "none" in error_of(outcome)


def test_request_that_ray_refuses_is_said(ray_bench: Bench) -> None:
    outcome = ray_bench.run("add", 1, config={"runtime_env": {"env_vars": "no dict"}})
    assert outcome.state is AttemptState.FAILED
    assert "env_vars" in error_of(outcome)


def test_failed_attempt_with_a_breakpoint_is_kept(ray_bench: Bench, module: Path) -> None:
    attempt = ray_bench.submit("fail", module=module, config={"breakpoint": True})
    until(lambda: ray_bench.log(attempt).exists() and b"is kept for a day" in ray_bench.log(attempt).read_bytes())
    assert "ValueError: look at me" in ray_bench.log(attempt).read_text()
    ray_bench.executor.cancel(attempt)
    assert ray_bench.outcome(attempt).state is AttemptState.KILLED


def test_attempt_without_room_is_pending_with_the_reason(ray_bench: Bench, module: Path) -> None:
    executor = ray_bench.executor
    assert isinstance(executor, RayExecutor)
    started, released = ray_bench.file("started"), ray_bench.file("released")
    first = ray_bench.submit("where", str(started), str(released), module=module, resources=Resources(cpu=4))
    until(started.exists)
    second = ray_bench.submit("add", 1, 1, resources=Resources(cpu=3))
    third = ray_bench.submit("add", 2, 2, resources=Resources(gpu=2))
    until(lambda: {second, third} <= executor.pending().keys())
    assert executor.pending()[second] == "waits for 3 CPU; 0 of 4 are free"
    assert executor.pending()[third].startswith("needs 2 GPU; the cluster has 0")
    assert first not in executor.pending()
    executor.cancel(third)
    assert ray_bench.outcome(third).state is AttemptState.KILLED
    released.touch()
    assert ray_bench.outcome(second).output == 2
    assert not executor.pending()


@pytest.mark.slow
def test_loss_of_the_head_loses_what_ran_and_nothing_else(ray_bench: Bench, module: Path) -> None:
    started = ray_bench.file("started")
    attempt = ray_bench.submit("where", str(started), str(ray_bench.file("never")), module=module)
    worker = pid_in(started)
    os.kill(daemon("gcs_server"), signal.SIGKILL)
    outcome = ray_bench.outcome(attempt)
    assert outcome.state is AttemptState.LOST
    assert "the local Ray was lost" in error_of(outcome)
    until(lambda: not is_running(worker))
    assert ray_bench.outcome(ray_bench.submit("add", 1, 1), seconds=300).output == 2


def lonely_bench(tmp_path: Path, module: Path, run_id: str, *, address: str = "", start_seconds: float = 120) -> Bench:
    terms = Terms(run_id=run_id, blobs_url=blobs_url(tmp_path), start_seconds=start_seconds)
    return Bench(RayExecutor(terms, address=address, capacity=4), module, tmp_path)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:10001"])
def test_address_that_cannot_be_used_is_said(
    tmp_path: Path, user_module: Path, run_id: str, free_port: int, address: str
) -> None:
    address = address.format(port=free_port)
    bench = lonely_bench(tmp_path, user_module, run_id, address=address)
    try:
        outcome = bench.outcome(bench.submit("add", 1, 1), seconds=180)
    finally:
        bench.executor.close()
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert outcome.error["type"] == "michelangelo.errors.ExecutorError"
    assert address in error_of(outcome)
    assert marked(run_id) == []


def test_ray_that_does_not_start_in_time_is_said(tmp_path: Path, user_module: Path, run_id: str) -> None:
    bench = lonely_bench(tmp_path, user_module, run_id, start_seconds=0.2)
    try:
        outcome = bench.outcome(bench.submit("add", 1, 1), seconds=180)
    finally:
        bench.executor.close()
    assert outcome.state is AttemptState.FAILED
    assert "the local Ray did not start in 0.2 s" in error_of(outcome)
    assert marked(run_id) == []


def test_missing_ray_is_said(tmp_path: Path, user_module: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    bench = lonely_bench(tmp_path, user_module, run_id)
    with pytest.raises(errors.ExecutorError, match=r"pip install 'michelangelo-oss\[ray\]'"):
        bench.submit("add", 1, 1)
    bench.executor.close()


def test_unused_executor_costs_and_leaves_nothing(tmp_path: Path, user_module: Path, run_id: str) -> None:
    fds = set(os.listdir("/proc/self/fd"))
    bench = lonely_bench(tmp_path, user_module, run_id)
    assert marked(run_id) == []
    bench.executor.close()
    assert set(os.listdir("/proc/self/fd")) == fds


@pytest.mark.slow
def test_local_ray_grows_with_what_tasks_ask_for(tmp_path: Path, module: Path, run_id: str) -> None:
    bench = lonely_bench(tmp_path, module, run_id)
    executor = bench.executor
    assert isinstance(executor, RayExecutor)
    started, released = bench.file("started"), bench.file("released")
    try:
        small = bench.submit("where", str(started), str(released))
        until(started.exists, seconds=180)
        large = bench.submit("is_initialized", resources=Resources(cpu=16), config={"custom_resources": {"fpga": 1}})
        until(lambda: "needs 16 CPU; the local Ray has 4" in executor.pending().get(large, ""))
        released.touch()
        assert bench.outcome(small).output == "released"
        assert bench.outcome(large, seconds=180).output is True
    finally:
        executor.close()
    assert marked(run_id) == []


@pytest.mark.slow
def test_ray_data_and_train_work_inside_what_a_task_reserved(tmp_path: Path, module: Path, run_id: str) -> None:
    bench = lonely_bench(tmp_path, module, run_id)
    config = {"worker_instances": 3, "worker_cpu": 1}
    try:
        data = bench.outcome(bench.submit("data", config=config), seconds=180)
        assert data.output == 9900, data
        folder = tmp_path / "train"
        folder.mkdir()
        train = bench.outcome(bench.submit("train", str(folder), config=config), seconds=300)
        assert train.output == ["0-of-2", "1-of-2"], train
    finally:
        bench.executor.close()


DRIVER = """
import sys
from michelangelo.executors.base import Attempt, CallTarget
from michelangelo.executors.ray.executor import RayExecutor
from michelangelo.executors.ray.session import Terms
module, run_id, blobs_url, family, address = sys.argv[1:]
executor = RayExecutor(Terms(run_id=run_id, blobs_url=blobs_url), address=address)
target = CallTarget(module, module.rpartition("/")[2].removesuffix(".py"), "family")
executor.submit(Attempt(id="a", target=target, arguments={"args": [family, False, True], "kwargs": {}}))
while not executor.poll(600):
    pass
"""


def start_driver(tmp_path: Path, module: Path, run_id: str, address: str = "") -> tuple[subprocess.Popen[bytes], Any]:
    family = tmp_path / "family.json"
    command = [sys.executable, "-c", DRIVER, str(module), run_id, blobs_url(tmp_path), str(family), address]
    driver = subprocess.Popen(command)
    until(family.exists, seconds=300)
    return driver, json.loads(family.read_text())


@pytest.mark.slow
def test_death_of_the_driver_ends_its_ray(tmp_path: Path, user_module: Path, run_id: str) -> None:
    driver, pids = start_driver(tmp_path, user_module, run_id)
    assert len(marked(run_id)) >= len(pids)
    driver.kill()
    driver.wait()
    until(lambda: not marked(run_id) and not any(map(is_running, pids)))
    until(lambda: not folders_of(run_id))


@pytest.mark.slow
def test_end_orphans_ends_a_ray_whose_agent_died_too(tmp_path: Path, user_module: Path, run_id: str) -> None:
    driver, pids = start_driver(tmp_path, user_module, run_id)
    agent = next(iter(processes.children(driver.pid)))
    os.kill(agent, signal.SIGSTOP)  # so that it cannot tidy up when the driver is gone
    for pid in (driver.pid, agent):
        os.kill(pid, signal.SIGKILL)
    driver.wait()
    executor = RayExecutor(Terms(run_id=run_id, blobs_url=blobs_url(tmp_path)))
    executor.end_orphans()
    assert marked(run_id) == []
    assert not any(map(is_running, pids))
    assert not folders_of(run_id)
    executor.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster with a node of its own for what asks for `far`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper", "1")
        cluster_utils = pytest.importorskip("ray.cluster_utils")
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
        )
        yield cluster
        cluster.shutdown()


@pytest.mark.slow
def test_attempt_runs_in_a_cluster_and_survives_the_loss_of_a_node(
    tmp_path: Path, module: Path, run_id: str, cluster: Any
) -> None:
    bench = lonely_bench(tmp_path, module, run_id, address=cluster.address)
    far = {"custom_resources": {"far": 1}}
    try:
        assert bench.outcome(bench.submit("is_initialized"), seconds=180).output is True
        node = cluster.add_node(num_cpus=1, resources={"far": 1})
        started = bench.file("started")
        attempt = bench.submit("where", str(started), str(bench.file("never")), config=far)
        worker = pid_in(started)
        cluster.remove_node(node, allow_graceful=False)
        outcome = bench.outcome(attempt, seconds=300)
        assert outcome.state is AttemptState.LOST, outcome
        until(lambda: not is_running(worker))
        executor = bench.executor
        assert isinstance(executor, RayExecutor)
        waiting = bench.submit("is_initialized", config=far)
        until(lambda: "needs 1 far; the cluster has 0" in executor.pending().get(waiting, ""), seconds=180)
        cluster.add_node(num_cpus=1, resources={"far": 1})
        assert bench.outcome(waiting, seconds=180).output is True
    finally:
        bench.executor.close()


@pytest.mark.slow
def test_death_of_the_driver_ends_its_attempts_in_a_cluster(
    tmp_path: Path, user_module: Path, run_id: str, cluster: Any
) -> None:
    driver, pids = start_driver(tmp_path, user_module, run_id, cluster.address)
    driver.kill()
    driver.wait()
    until(lambda: not any(map(is_running, pids)))
    assert is_running(cluster.head_node.all_processes["gcs_server"][0].process.pid)


@pytest.mark.slow
def test_source_is_brought_to_workers_that_do_not_have_the_file(
    tmp_path: Path, module: Path, run_id: str, cluster: Any
) -> None:
    bench = lonely_bench(tmp_path, module, run_id, address=cluster.address)
    started, released = bench.file("started"), bench.file("released")
    try:
        # The first attempt packs the source and holds a worker that has not loaded it yet for the second.
        attempt = bench.submit("where", str(started), str(released))
        until(started.exists, seconds=180)
        hidden = module.with_suffix(".hidden")
        module.rename(hidden)
        assert bench.outcome(bench.submit("is_initialized"), seconds=180).output is True
        released.touch()
        assert bench.outcome(attempt).output == "released"
    finally:
        bench.executor.close()
