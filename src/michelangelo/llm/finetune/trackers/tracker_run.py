"""What a tracker can do for a run: the protocol that all four implement, and how they are told which run it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

__all__ = ["Identity", "Outcome", "Scalar", "TrackerRun"]

Scalar: TypeAlias = bool | int | float | str
Outcome: TypeAlias = Literal["Succeeded", "Stopped", "Failed"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which run is to be opened."""

    project: str
    name: str
    address: str
    """A server or a folder; empty: the tracker's default."""
    offline: bool
    folder: Path
    """Of the training run: where trackers that write files do so by default."""
    run_id: str = ""
    """What the tracker called the run before it was interrupted; empty: a new run."""
    step: int = 0
    """The step after which the run starts."""


class TrackerRun(Protocol):
    """An open run. Everything raises SinkError when the tracker does not take it; all calls come from one thread."""

    run_id: str
    """By which the run is found again."""

    def parameters(self, values: Mapping[str, Scalar]) -> None:
        """Of a resumed run: those that are there already stay as they are, where the tracker forbids changes."""
        ...

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Finite numbers only."""
        ...

    def alert(self, step: int, kind: str, message: str) -> None: ...

    def summary(self, step: int, values: Mapping[str, Scalar]) -> None:
        """The results, when the run is over."""
        ...

    def end(self, outcome: Outcome) -> None:
        """Sends what is left, and closes."""
        ...
