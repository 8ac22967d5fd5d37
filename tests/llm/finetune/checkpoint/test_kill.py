"""A process that saves all the time and is killed at any moment: what is found afterwards is always whole."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.llm.finetune.checkpoint import small_runs

from michelangelo.llm.finetune.recording import Event

pytestmark = pytest.mark.usefixtures("_one_thread")


def save_forever(folder: Path, ready: Any) -> None:
    """All tensors of a checkpoint hold its step, so that a mixture of two would show."""
    torch.set_num_threads(1)
    events: list[Event] = []
    run = small_runs.Run(width=2000)
    run.step()
    checkpoints = small_runs.open_store(folder, events, keep_last=2)
    newest = checkpoints.newest()
    step = newest.step if newest else 0
    while True:
        step += 1
        fill(run, step)
        checkpoints.save(run.state(step))
        if events:
            assert not small_runs.alerts(events), events
            events.clear()
            ready.send(step)


def fill(run: small_runs.Run, step: int) -> None:
    with torch.no_grad():
        for tensor in (*run.strategy.model_state().values(), *run.strategy.optimizer_state().values()):
            tensor.fill_(step)


def kill_at_random_moments(folder: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    committed = 0
    for _ in range(rounds):
        receiver, sender = small_runs.starter().Pipe(duplex=False)
        process = small_runs.starter().Process(target=save_forever, args=(folder, sender), daemon=True)
        process.start()
        sender.close()
        assert receiver.poll(120)
        process.join(chance.uniform(0.0, 0.15))
        assert process.is_alive()
        process.kill()
        process.join()
        while receiver.poll():
            try:
                committed = receiver.recv() - 1
            except EOFError:
                break
        committed = assert_whole(folder, committed)


def assert_whole(folder: Path, committed: int) -> int:
    events: list[Event] = []
    run = small_runs.Run(width=2000)
    checkpoints = small_runs.open_store(folder, events)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step >= committed
    checkpoints.load(newest, run.strategy)
    checkpoints.close()
    assert small_runs.alerts(events) == []
    for name, tensor in run.tensors().items():
        assert (tensor == torch.tensor(newest.step, dtype=tensor.dtype)).all(), name
    return newest.step


def test_a_killed_run_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path, rounds=3, seed=1)


@pytest.mark.slow
def test_a_run_killed_again_and_again_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path, rounds=40, seed=2)
