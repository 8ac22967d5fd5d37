"""What an experiment is told, what it predicts and what it measures: values only, all of them JSON.

An experiment is a module with `SUMMARY`, `CLAIM`, `predict` and `measure` (`Experiment`); `performing` runs it. A
prediction and its measurement are the same Quantity before and after, so that they are compared by construction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

__all__ = ["Deadline", "Experiment", "Outcome", "Point", "Quantity", "Series", "Task", "Unit", "filled"]

Unit: TypeAlias = Literal["bytes", "tokens/s", "share", "times", "sequences", "seconds", "tries", "nats", "FLOP/byte"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an experiment has to come to its end, by a clock that only goes on."""

    ends_at: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Deadline:
        return cls(clock() + seconds, clock)

    def remaining(self) -> float:
        """Seconds; 0 when it is over."""
        return max(0.0, self.ends_at - self.clock())

    @property
    def is_over(self) -> bool:
        return self.remaining() <= 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an experiment is to be done with."""

    model: str
    """A name of the catalogue, or a folder with config.json."""
    device: Literal["cpu", "cuda"]
    device_name: str
    capacity_bytes: int
    """What tensors may take of the device's memory: all of it, or the cap."""
    is_capped: bool
    """Whether the cap is less than what the device has."""
    quick: bool
    """Fewer steps and sizes: it shows that all works, not what a device can do."""
    minutes: float
    """What is left undone after this time is left out, and said."""
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One figure: predicted first, measured afterwards. None: not known."""

    case: str
    """The setup that it is of; of two that are compared, `A against B`."""
    name: str
    unit: Unit
    predicted: float | None
    measured: float | None = None
    goal: float | None = None
    """What the published claim is, as the least that counts; `goal_is_upper`: the most."""
    goal_is_upper: bool = False
    low: float | None = None
    high: float | None = None
    """Interval of the measurement where it was repeated (95 %)."""
    note: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.case, self.name

    @property
    def error(self) -> float | None:
        """Of the prediction, relative to what was measured; for shares, the difference."""
        if self.predicted is None or self.measured is None:
            return None
        if self.unit == "share":
            return self.predicted - self.measured
        return self.predicted / self.measured - 1.0 if self.measured else None

    @property
    def reaches_goal(self) -> bool | None:
        """None where there is no goal, or nothing was measured."""
        if self.goal is None or self.measured is None:
            return None
        return self.measured <= self.goal if self.goal_is_upper else self.measured >= self.goal

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "error": self.error, "reaches_goal": self.reaches_goal}


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a line; y of what was measured, or None."""

    x: float
    y: float | None
    predicted: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line, or bars where `x_label` is empty. Several with the same labels are one panel of the plot."""

    name: str
    x_label: str
    y_label: str
    points: Sequence[Point]
    x_is_log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an experiment."""

    quantities: Sequence[Quantity]
    """Those that were predicted, in their order, and any that only measuring can bring."""
    series: Sequence[Series] = ()
    conclusions: Sequence[str] = ()
    """Sentences that answer the question, with their figures."""
    measurements: Sequence[Mapping[str, Any]] = ()
    """Each measurement as it was made, JSON."""
    left_out: Sequence[str] = field(default_factory=tuple)
    """What the time did not suffice for."""


class Experiment(Protocol):
    """A module of this package."""

    SUMMARY: str
    CLAIM: str
    """What is published, with its address."""

    def predict(self, task: Task) -> Sequence[Quantity]:
        """Before anything is measured. Raises ModelError, SettingsError where the task is impossible."""
        ...

    def measure(self, task: Task, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome: ...


def filled(predicted: Sequence[Quantity], measured: Mapping[tuple[str, str], float | None]) -> list[Quantity]:
    """The predicted quantities with what was measured; a key that was not predicted is a mistake (KeyError)."""
    known = {quantity.key for quantity in predicted}
    if unknown := sorted(set(measured) - known):
        raise KeyError(f"measured, but not predicted: {unknown}")
    return [
        replace(q, measured=value) if (value := measured.get(q.key)) is not None and math.isfinite(value) else q
        for q in predicted
    ]
