"""Flash attention and an optimizer in the host's memory together, against neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from michelangelo.llm.bench import comparison
from michelangelo.llm.bench.experiment import Deadline, Outcome, Quantity, Task
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["CLAIM", "SUMMARY", "measure", "predict"]

SUMMARY: Final = "flash attention and optimizer offload together, against neither"
CLAIM: Final = (
    "batches 2 to 7 times as large, of Llama 2 70B on 32 GPUs of 80 GB "
    "(https://www.uber.com/blog/open-source-and-in-house-how-uber-optimizes-llm-training/)"
)


def predict(task: Task) -> Sequence[Quantity]:
    return comparison.predict(task, _pair(task))


def measure(task: Task, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome:
    return comparison.measure(task, _pair(task), predicted, deadline)


def _pair(task: Task) -> comparison.Pair:
    on_gpu = task.device == "cuda"
    neither = TrainingSetup(
        method="full",
        objective="pretrain",
        sequence_length=2048 if on_gpu else 256,
        attention="eager",
        precision="bf16_mixed" if on_gpu else "fp32",
    )
    both = neither.replace(attention="flash", sharding="zero3", offload="optimizer")
    return comparison.Pair(neither, both, ("neither", "both"), comparison.Goals(larger=7.0))
