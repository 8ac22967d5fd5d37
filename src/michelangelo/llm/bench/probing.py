"""Measuring the setups of one experiment in this process: under its cap, each setup once, memory also on a CPU.

How a setup is run is in `measuring`; what to measure, and when, is the experiment's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from michelangelo.llm.bench import cpu_memory, measuring
from michelangelo.llm.bench.experiment import Task
from michelangelo.llm.bench.measuring import Measurement
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Probe", "capped", "measure_capped"]


class Probe:
    """Measurements of one task's model. What was measured is not measured again."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._device = torch.device(task.device)
        self._known: dict[TrainingSetup, Measurement] = {}
        self._sized: dict[TrainingSetup, Measurement] = {}

    def measure(self, setup: TrainingSetup) -> Measurement:
        """Speed and memory."""
        if setup not in self._known:
            steps, warm_up = (2, 1) if self._task.quick else (4, 2)
            self._known[setup] = measure_capped(
                self._task.model,
                setup,
                device=self._device,
                cap_bytes=self._task.capacity_bytes,
                steps=steps,
                warm_up=warm_up,
            )
        return self._known[setup]

    def peak_bytes(self, setup: TrainingSetup) -> int:
        """What its tensors hold at most; 0: it does not fit."""
        found = self._known.get(setup) or self._sized.get(setup)
        if found is None:
            found = self._sized[setup] = measure_capped(
                self._task.model, setup, device=self._device, cap_bytes=self._task.capacity_bytes, steps=1, warm_up=1
            )
        return 0 if found.out_of_memory else found.allocated_bytes

    def all(self) -> list[dict[str, Any]]:
        """Every measurement that was made, JSON."""
        return [found.to_dict() for found in (*self._known.values(), *self._sized.values())]


def measure_capped(
    model: str, setup: TrainingSetup, *, device: torch.device, cap_bytes: int, steps: int, warm_up: int
) -> Measurement:
    """`measuring.measure` with at most `cap_bytes` for tensors (0: all of the device).

    On a GPU the allocator holds to the cap. On a CPU the tensors are counted, in steps of their own, as counting slows
    them; what is over the cap is out of memory.
    """
    with capped(device, cap_bytes):
        found = measuring.measure(model, setup, device=device, steps=steps, warm_up=warm_up)
    if device.type != "cpu" or found.out_of_memory:
        return found
    with cpu_memory.PeakOfTensors() as counted:
        measuring.measure(model, setup, device=device, steps=1, warm_up=1)
    return dataclasses.replace(
        found,
        allocated_bytes=counted.peak_bytes,
        out_of_memory=bool(cap_bytes) and counted.peak_bytes > cap_bytes,
        notes={**found.notes, "memory": "tensors, counted operation by operation"},
    )


@contextmanager
def capped(device: torch.device, cap_bytes: int) -> Iterator[None]:
    """On a GPU, the allocator refuses what goes beyond `cap_bytes`, as a smaller device would."""
    if device.type != "cuda" or not cap_bytes:
        yield
        return
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_bytes / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
