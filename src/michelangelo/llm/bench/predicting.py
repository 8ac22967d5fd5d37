"""What the planner says of a task's setups: memory, the largest batch, speed. It is asked before a measurement."""

from __future__ import annotations

import bisect
import functools
from dataclasses import dataclass
from typing import Final

from michelangelo.llm import model_shape
from michelangelo.llm.bench.experiment import Task
from michelangelo.llm.planner import hardware, memory, throughput
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.throughput import Throughput
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Expected", "Plan"]

_MAX_BATCH: Final = 1 << 14
_GPU_ONLY_BYTES: Final = 32 << 20
"""cuBLAS's workspace, which the planner counts and a CPU does not have."""
_USABLE_SHARE: Final = 0.97
"""Of a GPU's memory, what tensors can take: the allocator's pieces that are too small are the rest (planner.memory)."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one setup; None where the planner does not know the device."""

    allocated_bytes: int
    tokens_per_second: float | None
    mfu: float | None


class Plan:
    """The planner's view of one task. Raises ModelError for a model that is none."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.shape = model_shape.load(task.model)
        self.hardware: Hardware | None = hardware.of_device(task.device_name) if task.device == "cuda" else None

    @property
    def usable_bytes(self) -> int:
        """What `allocated_bytes` may reach."""
        return int(self._task.capacity_bytes * (_USABLE_SHARE if self._task.device == "cuda" else 1.0))

    def of(self, setup: TrainingSetup) -> Expected:
        speed = self.throughput(setup)
        if speed is None:
            return Expected(self._allocated(setup), None, None)
        return Expected(self._allocated(setup), speed.tokens_per_second, speed.mfu)

    def throughput(self, setup: TrainingSetup) -> Throughput | None:
        """None on a CPU, of which the planner knows no speed, and on a GPU that is in no catalogue."""
        return None if self.hardware is None else throughput.estimate(self.shape, setup, self.hardware)

    def largest_batch(self, setup: TrainingSetup) -> int:
        """Sequences per pass that fit; 0: not even one."""
        return _largest(self, setup)

    def holds(self, setup: TrainingSetup) -> int:
        """Bytes to be compared with the capacity: on a GPU with the allocator's unused pieces."""
        if self._task.device == "cuda":
            return memory.estimate(self.shape, setup).reserved
        return self._allocated(setup)

    def fits(self, setup: TrainingSetup) -> bool:
        return self.holds(setup) <= self._task.capacity_bytes

    def _allocated(self, setup: TrainingSetup) -> int:
        found = memory.estimate(self.shape, setup)
        if self._task.device == "cuda":
            return found.allocated
        # A CPU has one memory: what rests in the host's is in it, too.
        return max(0, found.allocated - _GPU_ONLY_BYTES) + found.host_bytes


@functools.lru_cache(maxsize=256)
def _largest(plan: Plan, setup: TrainingSetup) -> int:
    batches = range(1, _MAX_BATCH + 1)
    return bisect.bisect_left(batches, True, key=lambda batch: not plan.fits(setup.replace(micro_batch=batch)))
