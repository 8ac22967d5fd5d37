"""Published throughputs as cases: shape, setup, hardware, stack and what was measured. No test."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from michelangelo.llm import model_shape
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import hardware, kernels, throughput
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.kernels import Rates, Stack
from michelangelo.llm.training_setup import TrainingSetup

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Case:
    """`measured`: tokens per second and GPU."""

    source: str
    shape: ModelShape
    setup: TrainingSetup
    hardware: Hardware
    stack: Stack
    measured: float

    def error(self, rates: Rates = kernels.RATES) -> float:
        """Natural logarithm of predicted / measured."""
        predicted = throughput.estimate(self.shape, self.setup, self.hardware, stack=self.stack, rates=rates)
        return math.log(predicted.tokens_per_second_per_gpu / self.measured)

    def __str__(self) -> str:
        return f"{self.source} {self.shape.name} {self.setup.num_gpus} GPUs {self.setup.sequence_length}"


@functools.cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / "throughput_anchors.json").read_text())
    return loaded


@functools.cache
def cases() -> Sequence[Case]:
    return tuple(_case(row) for row in document()["rows"])


def _case(row: dict[str, Any]) -> Case:
    setup = TrainingSetup(**row["setup"])
    shape = _shape(row["model"], setup.sequence_length)
    return Case(
        row["source"],
        shape,
        setup,
        hardware.load(row["hardware"]),
        kernels.stack_named(row["stack"]),
        row["tokens_per_second_per_gpu"],
    )


@functools.cache
def _shape(name: str, positions: int) -> ModelShape:
    own = document()["shapes"].get(name)
    if own is None:
        return model_shape.load(name)
    return ModelShape(**{**own, "name": name, "learned_positions": positions})
