"""Flash against eager attention: what is saved by never holding the S x S scores, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from michelangelo.llm.bench import comparison
from michelangelo.llm.bench.experiment import Deadline, Outcome, Quantity, Task
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["CLAIM", "SUMMARY", "measure", "predict"]

SUMMARY: Final = "flash against eager attention: memory at equal batch, largest batch, speed"
CLAIM: Final = (
    "50 % of the memory saved at equal batch, and batches twice as large at comparable speed "
    "(https://www.uber.com/blog/open-source-and-in-house-how-uber-optimizes-llm-training/)"
)


def predict(task: Task) -> Sequence[Quantity]:
    return comparison.predict(task, _pair(task))


def measure(task: Task, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome:
    return comparison.measure(task, _pair(task), predicted, deadline)


def _pair(task: Task) -> comparison.Pair:
    on_gpu = task.device == "cuda"
    eager = TrainingSetup(
        method="full",
        objective="pretrain",
        sequence_length=4096 if on_gpu else 256,
        attention="eager",
        precision="bf16_mixed" if on_gpu else "fp32",
    )
    goals = comparison.Goals(saved=0.5, larger=2.0)
    return comparison.Pair(eager, eager.replace(attention="flash"), ("eager", "flash"), goals)
