"""The events of a small run, as the trainer records them, for tests of what receives them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from michelangelo.llm.finetune.recording import Alert, Ended, Evaluated, Event, Saved, Started, Stepped

CONFIG = {
    "model": {"path": "models/tiny"},
    "data": {"train": [{"path": "rows.jsonl"}], "sequence_length": 128},
    "optimizer": {"learning_rate": 2e-4, "betas": [0.9, 0.95]},
    "objective": "sft",
    "output": "runs/one",
}


def started(step: int = 0, total_steps: int = 6) -> Started:
    return Started(
        config=CONFIG,
        step=step,
        total_steps=total_steps,
        num_parameters=31_000,
        num_trained_parameters=1_500,
        plan={"allocated_bytes": 2**30},
    )


def stepped(step: int, loss: float | None = None) -> Stepped:
    return Stepped(
        step=step,
        loss=5.0 / step if loss is None else loss,
        grad_norm=1.0 + step,
        learning_rate=1e-4 * step,
        num_tokens=256,
        seconds=0.5,
        tokens_per_second=512.0,
        mfu=math.nan,
        memory_bytes=3 * 2**20,
        eta_seconds=0.5 * (6 - step),
        epoch=step / 6,
        metrics={"reward_margin": 0.1 * step},
    )


def ended(step: int = 6) -> Ended:
    return Ended(step, "Succeeded", "", {"final_loss": 5.0 / step, "best_evaluation": {"step": 4, "loss": 2.5}})


def whole_run(first: int = 1, last: int = 6) -> Iterator[Event]:
    """Steps first … last of six, with an evaluation and a checkpoint after the fourth, and an alert at the third."""
    yield started(first - 1)
    for step in range(first, last + 1):
        yield stepped(step)
        if step == 3:
            yield Alert(3, "LossSpike", "the loss 9.0 of step 3 is far above the median")
        if step == 4:
            yield Evaluated(4, 2.5, 1024, True, {"accuracy": 0.75})
            yield Saved(4, "runs/one/checkpoints/4", 4096, 0.25)
    if last == 6:
        yield ended()
