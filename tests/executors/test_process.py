"""What only processes can do: die, be ended with all they started, and be found again."""

from __future__ import annotations

import glob
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.executors.conftest import Bench, blobs_url, until

from michelangelo.executors import launch, process, processes
from michelangelo.executors.base import AttemptState, Orphans
from michelangelo.worker import forksafety

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def marked(run_id: str) -> list[int]:
    """The running processes whose environment carries the marker of a run."""
    wanted = f"{processes.RUN_MARKER}={run_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def family_of(bench: Bench, *, detached: bool, wait: bool) -> tuple[str, list[int]]:
    path = bench.file("family.json")
    attempt = bench.submit("family", str(path), detached, wait)
    until(path.exists)
    pids: list[int] = json.loads(path.read_text())
    return attempt, pids


def test_attempts_share_nothing(process_bench: Bench) -> None:
    assert process_bench.run("remember", "one").output == ["one"]
    assert process_bench.run("remember", "two").output == ["two"]


def test_main_is_the_users_module(process_bench: Bench) -> None:
    assert process_bench.run("main_module").output == str(process_bench.module)


def test_output_of_the_import_is_in_every_log(process_bench: Bench) -> None:
    attempts = [process_bench.submit("add", 1, 1) for _ in range(2)]
    for attempt in attempts:
        process_bench.outcome(attempt)
        assert process_bench.log(attempt).read_text() == "imported\n"


@pytest.mark.parametrize(
    ("function", "args", "code", "said"),
    [
        ("exit_now", (3,), 3, "exited with code 3"),
        ("crash", (), -signal.SIGSEGV, "SIGSEGV"),
        ("kill_self", (), -signal.SIGKILL, "SIGKILL"),
    ],
)
def test_process_that_ends_without_result_is_lost(
    process_bench: Bench, function: str, args: tuple[object, ...], code: int, said: str
) -> None:
    outcome = process_bench.run(function, *args)
    assert (outcome.state, outcome.exit_code) == (AttemptState.LOST, code)
    assert outcome.error is not None
    assert said in outcome.error["message"]
    assert process_bench.run("add", 1, 1).output == 2


def test_log_of_a_crash_says_in_which_line(process_bench: Bench) -> None:
    attempt = process_bench.submit("crash")
    process_bench.outcome(attempt)
    assert re.search(
        rf'File "{re.escape(str(process_bench.module))}", line \d+ in crash', process_bench.log(attempt).read_text()
    )


def test_memory_over_the_limit_is_stopped(process_bench: Bench) -> None:
    outcome = process_bench.run("hog", "", memory_bytes=256 << 20)
    assert outcome.state is AttemptState.OUT_OF_MEMORY
    assert outcome.error is not None
    assert "over its limit of 256 MiB" in outcome.error["message"]
    assert outcome.max_rss_bytes > 256 << 20


def test_cancel_ends_what_ignores_sigterm(process_bench: Bench) -> None:
    started = process_bench.file("started")
    attempt = process_bench.submit("stubborn", str(started))
    until(started.exists)
    process_bench.executor.cancel(attempt, grace_seconds=0.1)
    outcome = process_bench.outcome(attempt)
    assert (outcome.state, outcome.exit_code) == (AttemptState.KILLED, -signal.SIGKILL)


@pytest.mark.parametrize("detached", [False, True])
def test_cancel_ends_the_whole_tree(process_bench: Bench, detached: bool) -> None:
    attempt, pids = family_of(process_bench, detached=detached, wait=True)
    process_bench.executor.cancel(attempt, grace_seconds=0.1)
    assert process_bench.outcome(attempt).state is AttemptState.KILLED
    until(lambda: not any(map(is_running, pids)))


def test_scratch_of_a_killed_attempt_is_removed(process_bench: Bench) -> None:
    module = process_bench.file("scratch_flow.py")
    module.write_text(
        "import os, signal\nfrom michelangelo.uniflow import task_context\n"
        "def use(path):\n"
        "    folder = task_context.current().scratch\n"
        "    os.makedirs(os.path.join(folder, 'deep', 'er'))\n"
        "    open(path, 'w').write(folder)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = process_bench.file("where")
    assert process_bench.run("use", str(path), module=module).state is AttemptState.LOST
    until(lambda: not os.path.exists(path.read_text()))


@pytest.mark.parametrize("detached", [False, True])
def test_end_of_an_attempt_ends_what_it_left(process_bench: Bench, detached: bool) -> None:
    attempt, pids = family_of(process_bench, detached=detached, wait=False)
    assert process_bench.outcome(attempt).output == "parent done"
    until(lambda: not any(map(is_running, pids)))


def test_threads_that_are_no_daemons_may_finish(process_bench: Bench) -> None:
    done = process_bench.file("done")
    assert process_bench.run("lingering", str(done)).output == "early"
    assert done.exists()


@pytest.mark.parametrize("process_bench", ["ours"], indirect=True)
@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("", "template"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "child"),
        ("import fragile", "child"),
        ("import random; random.seed(42)", "child"),
        ("import random; dice = random.Random()", "child"),
        ("import subprocess; helper = subprocess.Popen(['sleep', '60'])", "child"),
        ("import numpy", "template"),
    ],
)
def test_module_is_imported_before_the_fork_only_if_that_is_safe(
    process_bench: Bench, monkeypatch: pytest.MonkeyPatch, source: str, where: str
) -> None:
    process_bench.file("fragile.py").write_text("")
    module = process_bench.file("importing_flow.py")
    module.write_text(f"import os\nimporter = os.getpid()\n{source}\ndef check(): return importer == os.getpid()\n")
    process_bench.executor.close()
    # The zygote's table, as it would be if `fragile` were one of the libraries in it.
    entry = "from michelangelo.worker import forksafety; forksafety.FORK_UNSAFE_MODULES |= {'fragile'}; "
    monkeypatch.setattr(launch, "ENTRY", launch.ENTRY.replace("from michelangelo", entry + "from michelangelo"))
    executor = process.ProcessExecutor(run_id="fork-safety", blobs_url=blobs_url(process_bench.folder))
    bench = Bench(executor, module, process_bench.folder)
    try:
        assert [bench.run("check").output for _ in range(2)] == [where == "child"] * 2
    finally:
        executor.close()


def test_table_of_unsafe_libraries_names_the_known_ones() -> None:
    assert {"torch", "ray", "jax", "tensorflow", "grpc"} <= forksafety.FORK_UNSAFE_MODULES


def test_seeded_module_draws_the_same_in_every_process(process_bench: Bench) -> None:
    module = process_bench.file("seeded_flow.py")
    module.write_text("import random\nrandom.seed(7)\ndef draw(): return random.random()\n")
    first, second = (process_bench.run("draw", module=module).output for _ in range(2))
    assert first == second


@pytest.mark.parametrize("process_bench", ["ours"], indirect=True)
@pytest.mark.parametrize(("seed", "count"), [("", 3), ("numpy.random.seed(7)", 1)])
def test_numpy_draws_what_fresh_processes_would_draw(process_bench: Bench, seed: str, count: int) -> None:
    pytest.importorskip("numpy")
    module = process_bench.file("numpy_flow.py")
    module.write_text(f"import numpy\n{seed}\ndef draw(): return float(numpy.random.random())\n")
    assert len({process_bench.run("draw", module=module).output for _ in range(3)}) == count


def test_import_that_ends_the_process_is_lost_and_harms_nobody(process_bench: Bench) -> None:
    module = process_bench.file("fatal_flow.py")
    module.write_text("import os\nos._exit(9)\n")
    outcome = process_bench.run("anything", module=module)
    assert (outcome.state, outcome.exit_code) == (AttemptState.LOST, 9)
    assert process_bench.run("add", 1, 1).output == 2


def test_timeout_holds_during_an_import_that_hangs(process_bench: Bench) -> None:
    module = process_bench.file("hanging_flow.py")
    module.write_text("import signal\nsignal.pause()\n")
    for _ in range(2):
        outcome = process_bench.run("anything", module=module, timeout_seconds=0.2)
        assert outcome.state is AttemptState.TIMED_OUT
    assert process_bench.run("add", 1, 1).output == 2


def test_death_of_the_zygote_loses_what_ran_and_nothing_else(process_bench: Bench) -> None:
    assert process_bench.run("add", 1, 1).output == 2
    attempt, pids = family_of(process_bench, detached=False, wait=True)
    leaders = [pid for pid in processes.tree(os.getpid())[1:] if os.getpgid(pid) == pid and os.getsid(pid) == pid]
    zygote = next(pid for pid in leaders if pids[0] in processes.tree(pid))
    os.kill(zygote, signal.SIGKILL)
    outcome = process_bench.outcome(attempt)
    assert outcome.state is AttemptState.LOST
    assert outcome.error is not None
    assert "zygote" in outcome.error["message"]
    until(lambda: not any(map(is_running, pids)))
    assert process_bench.run("add", 2, 2).output == 4


def test_interpreter_that_does_not_start_is_said(tmp_path: Path, user_module: Path, run_id: str) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 1\n")
    broken.chmod(0o755)
    executor = process.ProcessExecutor(
        run_id=run_id, blobs_url=blobs_url(tmp_path), interpreter=launch.Interpreter(python=str(broken))
    )
    try:
        outcome = Bench(executor, user_module, tmp_path).run("add", 1, 1)
    finally:
        executor.close()
    assert outcome.state is AttemptState.LOST
    assert outcome.error is not None
    assert "no such thing" in outcome.error["message"]


def test_close_leaves_nothing(tmp_path: Path, user_module: Path, run_id: str) -> None:
    fds, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    executor = process.ProcessExecutor(run_id=run_id, blobs_url=blobs_url(tmp_path), capacity=4)
    bench = Bench(executor, user_module, tmp_path)
    assert bench.run("add", 1, 1).output == 2
    _, pids = family_of(bench, detached=False, wait=True)
    assert marked(run_id)
    executor.close()
    assert marked(run_id) == []
    assert not any(map(is_running, pids))
    assert set(os.listdir("/proc/self/fd")) == fds
    assert threading.active_count() == threads


DRIVER = """
import sys
from michelangelo.executors import process
from michelangelo.executors.base import Attempt, CallTarget
module, run_id, blobs_url, family = sys.argv[1:]
executor = process.ProcessExecutor(run_id=run_id, blobs_url=blobs_url)
target = CallTarget(module, module.rpartition("/")[2].removesuffix(".py"), "family")
arguments = {"args": [family, False, True], "kwargs": {}}
executor.submit(Attempt(id="a", target=target, arguments=arguments))
executor.poll(600)
"""


@pytest.fixture
def start_driver(
    tmp_path: Path, user_module: Path, run_id: str
) -> Callable[[], tuple[subprocess.Popen[bytes], list[int]]]:
    def start() -> tuple[subprocess.Popen[bytes], list[int]]:
        family = tmp_path / "family.json"
        command = [sys.executable, "-c", DRIVER, str(user_module), run_id, blobs_url(tmp_path), str(family)]
        driver = subprocess.Popen(command)
        until(family.exists)
        return driver, json.loads(family.read_text())

    return start


def test_death_of_the_driver_ends_everything(
    start_driver: Callable[[], tuple[subprocess.Popen[bytes], list[int]]], run_id: str
) -> None:
    driver, pids = start_driver()
    assert len(marked(run_id)) >= len(pids)
    driver.kill()
    driver.wait()
    until(lambda: not marked(run_id) and not any(map(is_running, pids)))
    assert glob.glob(f"{tempfile.gettempdir()}/michelangelo-{run_id}-*") == []


def test_end_orphans_ends_what_survived_driver_and_zygotes(
    start_driver: Callable[[], tuple[subprocess.Popen[bytes], list[int]]], run_id: str, process_bench: Bench
) -> None:
    driver, pids = start_driver()
    zygotes = [pid for pid in processes.tree(driver.pid)[1:] if pid not in pids and os.getpgid(pid) == pid]
    for pid in zygotes:
        os.kill(pid, signal.SIGSTOP)  # so that none can tidy up when the driver is gone
    for pid in [driver.pid, *zygotes]:
        os.kill(pid, signal.SIGKILL)
    driver.wait()
    assert any(map(is_running, pids)), "grandchildren survive when driver and zygotes die at once"
    executor = process_bench.executor
    assert isinstance(executor, Orphans)
    assert process_bench.run("add", 1, 1).output == 2
    assert executor.end_orphans() >= 1
    assert not any(map(is_running, pids))
    assert executor.end_orphans() == 0
    assert len(glob.glob(f"{tempfile.gettempdir()}/michelangelo-{run_id}-*")) == 1, "that of the executor that lives"
    assert process_bench.run("add", 2, 2).output == 4
