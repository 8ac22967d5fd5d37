"""Resuming needs no more memory than starting: the peak of whole processes, as the kernel counts it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from tests.llm.finetune.checkpoint import small_runs

from michelangelo.llm.finetune import optimizers
from michelangelo.llm.finetune.checkpoint import state
from michelangelo.llm.finetune.config import OptimizerConfig
from michelangelo.llm.finetune.strategy import SingleProcess

pytestmark = pytest.mark.usefixtures("_one_thread")

NUM_LAYERS, WIDTH = 25, 1024
"""100 MB of weights in fp32, and 200 MB of AdamW's states."""


def peaks(rank: int, count: int, folder: Path, resumes: bool) -> tuple[int, int]:
    """Bytes after two steps of a run that starts or resumes; and after saving, without a copy for a thread."""
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(NUM_LAYERS)))
    strategy = SingleProcess(torch.device("cpu"))
    stepper = strategy.prepare(
        model, lambda named: optimizers.build(named, OptimizerConfig(), precision="fp32", accumulate=False)
    )
    checkpoints = small_runs.open_store(folder, [], asynchronous=False)
    if resumes:
        newest = checkpoints.newest()
        assert newest is not None
        checkpoints.load(newest, strategy)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        stepper.clip_and_step(1.0, optimizers.finite)
    stepped = resident_peak()
    if not resumes:
        checkpoints.save(state.RunState(2, strategy.model_state(), strategy.optimizer_state(), {}, {}))
    checkpoints.close()
    return stepped, resident_peak()


def resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_resuming_and_saving_need_no_more_memory_than_starting(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    ((start, save),) = small_runs.processes(1, peaks, tmp_path, folder, False)
    ((resume, _),) = small_runs.processes(1, peaks, tmp_path, folder, True)
    weights = NUM_LAYERS * WIDTH * WIDTH * 4
    assert start > 4 * weights, "weights, gradients and two states are seen"
    assert resume <= start * 1.1
    assert save <= start * 1.1
