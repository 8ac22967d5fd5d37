"""What happens in a training run, as events: one interface for the terminal, files, trackers and the platform.

It decides nothing and formats nothing. A sink that fails is dropped with an alert; it never ends a run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from michelangelo import errors

__all__ = [
    "Alert",
    "Ended",
    "Evaluated",
    "Event",
    "Recorder",
    "Saved",
    "Sink",
    "SinkError",
    "Started",
    "Stepped",
    "to_dict",
]


@dataclass(frozen=True, slots=True)
class Started:
    """The run is about to take its first step (or the next one, when resumed)."""

    config: Mapping[str, Any]
    step: int
    total_steps: int
    num_parameters: int
    num_trained_parameters: int
    plan: Mapping[str, Any] = field(default_factory=dict)
    """What the planner predicts: empty where there is no plan."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """One optimizer step. Times in seconds, memory in bytes; rates are of the whole run's processes."""

    step: int
    loss: float
    """Nats per trained token."""
    grad_norm: float
    learning_rate: float
    num_tokens: int
    """Positions of this step, all processes."""
    seconds: float
    tokens_per_second: float
    mfu: float
    """Share of the hardware's peak, 0 … 1; NaN where the peak is not known."""
    memory_bytes: int
    """The most that this process's device held in the step; the process's resident size on a CPU."""
    eta_seconds: float
    epoch: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the objective: DPO's margins and accuracy."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    step: int
    loss: float
    num_tokens: int
    is_best: bool
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Saved:
    step: int
    path: str
    num_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should see: `kind` is CamelCase (`NotANumber`, `LossSpike`, `BadRows`, `TrackerLost`)."""

    step: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    step: int
    outcome: Literal["Succeeded", "Stopped", "Failed"]
    message: str
    summary: Mapping[str, Any] = field(default_factory=dict)


Event: TypeAlias = Started | Stepped | Evaluated | Saved | Alert | Ended


class SinkError(errors.LlmError):
    """A sink cannot take an event: its server does not answer, its disk is full."""


class Sink(Protocol):
    """Takes events in order, from one thread. Raises SinkError, and only that, when it cannot."""

    name: str

    def receive(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Recorder:
    """Hands each event to every sink. A sink that fails is left out from then on, and the others are told."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = list(sinks)
        self.alerts: list[Alert] = []

    def record(self, event: Event) -> None:
        pending = [event]
        while pending:
            now = pending.pop(0)
            if isinstance(now, Alert):
                self.alerts.append(now)
            failed = [(sink, reason) for sink in self._sinks if (reason := _failure(sink, now))]
            for sink, reason in failed:
                self._sinks.remove(sink)
                said = f"{sink.name} takes no more events, training goes on: {reason}"
                pending.append(Alert(getattr(now, "step", 0), "SinkLost", said))

    def close(self) -> None:
        """Ends every sink, the last one first; what fails then is said by those that are left."""
        while self._sinks:
            sink = self._sinks.pop()
            try:
                sink.close()
            except SinkError as e:
                self.record(Alert(0, "SinkLost", f"{sink.name} could not be ended: {e.message}"))


def _failure(sink: Sink, event: Event) -> str:
    """Why the sink could not take the event; empty: it did."""
    try:
        sink.receive(event)
    except SinkError as e:
        return e.message
    return ""


def to_dict(event: Event) -> dict[str, Any]:
    """For JSON: the fields, and `event` with the name of the class."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}
