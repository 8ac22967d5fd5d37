"""The optimizer in the host's memory against all on the GPU: what is saved, and what the transfers cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from michelangelo.llm.bench import comparison
from michelangelo.llm.bench.experiment import Deadline, Outcome, Quantity, Task
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["CLAIM", "SUMMARY", "measure", "predict"]

SUMMARY: Final = "the optimizer in the host's memory against all on the GPU: memory, largest batch, throughput"
CLAIM: Final = (
    "at least 34 % of the memory saved at equal batch, batches 3 to 4 times as large, throughput 2 to 3 times as high, "
    "of Llama 2 70B on 32 GPUs "
    "(https://www.uber.com/blog/open-source-and-in-house-how-uber-optimizes-llm-training/)"
)


def predict(task: Task) -> Sequence[Quantity]:
    return comparison.predict(task, _pair(task))


def measure(task: Task, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome:
    return comparison.measure(task, _pair(task), predicted, deadline)


def _pair(task: Task) -> comparison.Pair:
    on_gpu = task.device == "cuda"
    resident = TrainingSetup(
        method="full",
        objective="pretrain",
        sequence_length=2048 if on_gpu else 256,
        precision="bf16_mixed" if on_gpu else "fp32",
    )
    offloaded = resident.replace(sharding="zero3", offload="optimizer")
    goals = comparison.Goals(saved=0.34, larger=3.0, gain=2.0)
    return comparison.Pair(resident, offloaded, ("all on the GPU", "optimizer offloaded"), goals)
