"""Jobs whose processes are killed by SIGKILL at many instants: resumed, they end with the bytes of an undisturbed run.

Instants are chosen by how much is on the disk, not by time. A forked driver with threads makes an instant cheap; whole
programs with processes and storms of kills are slow.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.llm.scorer import scoring_jobs

from michelangelo.llm.scorer import job
from michelangelo.llm.scorer.config import ScoreConfig
from michelangelo.llm.scorer.display import Display

ROWS = 160
CAPACITY = 4
REPLICAS = 2
# Python 3.12 and later warn of a fork beside threads; none of them holds a lock here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows: list[Any] = scoring_jobs.rows_of(ROWS)
    rows[17] = "torn {"
    rows[90] = {"other": 1}
    return scoring_jobs.write_rows(tmp_path_factory.mktemp("input") / "in.jsonl", rows)


def config_of(source: Path, target: Path, **sections: Any) -> ScoreConfig:
    # So slow that a job takes long enough to be killed within.
    engine = {"kind": "stub", "capacity": CAPACITY, "latency_steps": 300}
    replicas = {"runner": "thread", "min": REPLICAS, "max": REPLICAS, **sections.pop("replicas", {})}
    return scoring_jobs.config_of(
        source, target, engine={**engine, **sections.pop("engine", {})}, replicas=replicas, shard_rows=9, **sections
    )


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    target = tmp_path_factory.mktemp("undisturbed") / "out.jsonl"
    assert job.score(config_of(source, target)).is_complete
    return target.read_bytes()


def on_disk(folder: Path) -> int:
    """Bytes that the job has written, whatever they are."""
    total = 0
    for place in ("rows", "parts", "done"):
        for path in (folder / place).glob("*") if (folder / place).exists() else ():
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
    return total


def until(condition: Callable[[], bool], is_over: Callable[[], bool]) -> bool:
    """Whether it came true before it was over; looks often, at a disk that nobody can be told of."""
    pause = threading.Event()
    while not is_over():
        if condition():
            return True
        pause.wait(0.002)
    return False


def forked(config: ScoreConfig) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=job.score, args=(config,))
    process.start()
    return process


def check(target: Path, undisturbed: bytes, report: dict[str, Any], *, num_kills: int) -> None:
    assert target.read_bytes() == undisturbed
    rows = report["rows"]
    assert (rows["total"], rows["failed"]) == (ROWS, 2)
    assert rows["rescored"] <= num_kills * CAPACITY * REPLICAS


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.6, 0.9])
def test_killed_driver_resumes_to_the_same_bytes(
    tmp_path: Path, source: Path, undisturbed: bytes, share: float
) -> None:
    config = config_of(source, tmp_path / "out.jsonl")
    num_kills = 0
    for amount in (share, share + 0.05):
        process = forked(config)
        goal = amount * len(undisturbed)
        if until(lambda goal=goal: on_disk(config.job_folder) >= goal, lambda p=process: not p.is_alive()):  # type: ignore[misc]
            process.kill()
            num_kills += 1
        process.join()
    assert num_kills >= 1
    outcome = job.score(config)
    check(tmp_path / "out.jsonl", undisturbed, outcome.report, num_kills=num_kills)


def test_driver_killed_while_it_writes_the_output_leaves_none(tmp_path: Path, source: Path, undisturbed: bytes) -> None:
    config = config_of(source, tmp_path / "out.jsonl", engine={"latency_steps": 0})
    process = forked(config)
    shards = -(-ROWS // 9)
    done = config.job_folder / "done"
    seen = until(
        lambda: done.exists() and len([path for path in done.iterdir() if path.suffix == ".json"]) == shards,
        lambda: not process.is_alive(),
    )
    process.kill()
    process.join()
    whole = tmp_path / "out.jsonl"
    assert seen or whole.exists()
    assert not whole.exists() or whole.read_bytes() == job_bytes(source, tmp_path)
    job.score(config)
    assert whole.read_bytes() == job_bytes(source, tmp_path)


def job_bytes(source: Path, tmp_path: Path) -> bytes:
    target = tmp_path / "again.jsonl"
    job.score(config_of(source, target, engine={"latency_steps": 0}))
    return target.read_bytes()


def test_killed_worker_is_replaced_and_leaves_the_same_bytes(tmp_path: Path, source: Path, undisturbed: bytes) -> None:
    config = config_of(source, tmp_path / "out.jsonl", replicas={"runner": "process", "min": 1, "max": 1})
    ends = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        if until(lambda: on_disk(config.job_folder) > 0.3 * len(undisturbed), ends.is_set):
            worker = next(one for one in psutil.Process().children() if "process_main" in " ".join(one.cmdline()))
            worker.send_signal(signal.SIGKILL)
            killed.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcome = job.score(config)
    finally:
        ends.set()
        killer.join()
    assert len(killed) == 1
    assert [one["error"] for one in outcome.report["replicas"]] == ["its process ended by signal SIGKILL", ""]
    check(tmp_path / "out.jsonl", undisturbed, outcome.report, num_kills=1)


# --- whole programs ---------------------------------------------------------------------------------------


def program(source: Path, target: Path, **limits: Any) -> subprocess.Popen[str]:
    """`mactl llm score` as a user runs it, with two processes."""
    config = config_of(source, target, replicas={"runner": "process"}, limits=limits)
    file = target.with_suffix(".json")
    file.write_text(json.dumps(config.model_dump(mode="json")))
    words = [sys.executable, "-m", "michelangelo.cli", "llm", "score", str(file), "--quiet", "-o", "json"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads(out)
    return report


def workers_of(process: subprocess.Popen[str]) -> Iterator[psutil.Process]:
    try:
        yield from psutil.Process(process.pid).children()
    except psutil.NoSuchProcess:
        return


@pytest.mark.slow
def test_storm_of_kills_leaves_the_same_bytes_and_no_process(tmp_path: Path, source: Path, undisturbed: bytes) -> None:
    draw = random.Random(5)
    target = tmp_path / "out.jsonl"
    folder = Path(f"{target}.job")
    num_kills = 0
    family: list[psutil.Process] = []
    for round_number in itertools.count():
        # A row that is alone in flight when somebody else kills its engine is not to blame.
        process = program(source, target, max_deaths_per_row=100)
        goal = on_disk(folder) + draw.uniform(0.02, 0.25) * len(undisturbed)
        is_killed = round_number < 3 and until(
            lambda goal=goal: on_disk(folder) >= goal,  # type: ignore[misc]
            lambda process=process: process.poll() is not None,  # type: ignore[misc]
        )
        if not is_killed:
            report = finished(process)
            break
        workers = list(workers_of(process))
        family += workers
        victim = draw.choice(["driver", "worker", "both"])
        if victim != "driver" and workers:
            os.kill(draw.choice(workers).pid, signal.SIGKILL)
            num_kills += 1
        if victim == "worker":
            until(
                lambda goal=goal: on_disk(folder) > goal + 500,  # type: ignore[misc]
                lambda process=process: process.poll() is not None,  # type: ignore[misc]
            )
        process.kill()
        process.communicate()
        num_kills += 1
    check(target, undisturbed, report, num_kills=num_kills)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
def test_second_program_is_refused_while_the_first_one_works(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out.jsonl"
    first = program(source, target)
    assert until(lambda: on_disk(Path(f"{target}.job")) > 0, lambda: first.poll() is not None)
    first.send_signal(signal.SIGSTOP)
    second = program(source, target)
    _, err = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert f"process {first.pid} on " in err
    assert finished(first)["rows"]["total"] == ROWS


@pytest.mark.slow
def test_engine_that_hangs_is_replaced_and_its_row_given_up(tmp_path: Path) -> None:
    engine = tmp_path / "hanging.py"
    engine.write_text(
        "import threading\n"
        "from michelangelo.llm.scorer.engines.stub import StubConfig, StubEngine\n"
        "class Hanging(StubEngine):\n"
        "    def submit(self, request):\n"
        "        super().submit(request)\n"
        "        if 'hang' in request.prompt:\n"
        "            threading.Event().wait()\n"
        "def make():\n"
        "    return Hanging(StubConfig(capacity=1))\n"
    )
    rows = scoring_jobs.rows_of(6)
    rows[3]["prompt"] = "hang"
    config = scoring_jobs.config_of(
        scoring_jobs.write_rows(tmp_path / "in.jsonl", rows),
        tmp_path / "out.jsonl",
        engine={"kind": "python", "target": f"{engine}:make"},
        replicas={"runner": "process"},
        limits={"engine_seconds": 1.0},
    )
    report = job.score(config, display=Display(is_on=False)).report
    failed = [line for line in scoring_jobs.lines(tmp_path / "out.jsonl") if line["error"]]
    assert [line["row"] for line in failed] == [3]
    assert "did not come back from a call" in failed[0]["error"]
    assert report["rows"]["rescored"] == 2
