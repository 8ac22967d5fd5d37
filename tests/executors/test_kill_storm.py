"""Processes of the executor die at random instants: every attempt still ends once, and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.executors.conftest import Bench, blobs_url
from tests.executors.test_process import marked

from michelangelo.executors import process, processes
from michelangelo.executors.base import AttemptState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

_ATTEMPTS = 30
_SECONDS = 60.0
_RAY_SECONDS = 600.0
_RAY_KILLS = 12
"""Ray waits a minute for a worker that was killed while it was being started, and on a busy machine they all are: a
storm there has an end."""


def storm(
    bench: Bench,
    seed: int,
    *,
    victims_of: Callable[[], list[int]],
    pause_seconds: float = 0.15,
    max_kills: int = 1_000_000,
) -> None:
    dice = random.Random(seed)
    kills = 0
    executor = bench.executor
    expected: dict[str, int] = {}
    next_kill = time.monotonic() + dice.uniform(0, pause_seconds)
    deadline = time.monotonic() + (_SECONDS if pause_seconds < 0.2 else _RAY_SECONDS)
    while len(bench.outcomes) < _ATTEMPTS:
        assert time.monotonic() < deadline, f"seed {seed}: {expected.keys() - bench.outcomes.keys()} never ended"
        while len(expected) < _ATTEMPTS and len(expected) - len(bench.outcomes) < executor.capacity:
            number = len(expected)
            expected[bench.submit("add", number, 1)] = number + 1
        for outcome in executor.poll(max(0.0, min(0.05, next_kill - time.monotonic()))):
            assert outcome.id not in bench.outcomes, f"seed {seed}: {outcome.id} ended twice"
            bench.outcomes[outcome.id] = outcome
        if time.monotonic() >= next_kill:
            next_kill += dice.uniform(0.005, pause_seconds)
            victims = victims_of() if kills < max_kills else []
            if victims:
                try:
                    os.kill(dice.choice(victims), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    continue
    for attempt_id, outcome in bench.outcomes.items():
        assert outcome.state in (AttemptState.SUCCEEDED, AttemptState.LOST), f"seed {seed}: {outcome}"
        if outcome.state is AttemptState.SUCCEEDED:
            assert outcome.output == expected[attempt_id], f"seed {seed}"


def everything() -> list[int]:
    return processes.tree(os.getpid())[1:]


def ray_workers() -> list[int]:
    """The worker processes of Ray below this process: Ray gives them names of its own."""
    return [pid for pid in everything() if comm(pid).startswith(("ray::attempt", "ray::IDLE"))]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def run_storm(tmp_path: Path, user_module: Path, run_id: str, seed: int) -> None:
    fds = set(os.listdir("/proc/self/fd"))
    executor = process.ProcessExecutor(run_id=run_id, blobs_url=blobs_url(tmp_path), capacity=4)
    try:
        storm(Bench(executor, user_module, tmp_path), seed, victims_of=everything)
    finally:
        executor.close()
    assert marked(run_id) == [], f"seed {seed}"
    assert set(os.listdir("/proc/self/fd")) == fds, f"seed {seed}"


@pytest.mark.parametrize("seed", range(3))
def test_every_attempt_ends_once_in_a_storm(tmp_path: Path, user_module: Path, run_id: str, seed: int) -> None:
    run_storm(tmp_path, user_module, run_id, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_every_attempt_ends_once_in_many_storms(tmp_path: Path, user_module: Path, run_id: str, seed: int) -> None:
    run_storm(tmp_path, user_module, run_id, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_every_attempt_in_ray_ends_once_when_workers_die(ray_bench: Bench, seed: int) -> None:
    storm(ray_bench, seed, victims_of=ray_workers, pause_seconds=0.5, max_kills=_RAY_KILLS)
    # Ray may hand out one more worker whose death it has not noticed; the engine starts such an attempt again, too.
    outcomes = [ray_bench.run("add", 1, 1) for _ in range(3)]
    assert {outcome.state for outcome in outcomes} <= {AttemptState.SUCCEEDED, AttemptState.LOST}
    assert outcomes[-1].output == 2


@pytest.mark.slow
def test_every_attempt_in_ray_ends_once_whatever_dies(ray_bench: Bench) -> None:
    storm(ray_bench, 7, victims_of=everything, pause_seconds=3.0, max_kills=_RAY_KILLS)
    assert ray_bench.run("add", 1, 1).output == 2
