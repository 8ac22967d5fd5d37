"""Two setups of one model side by side: memory at an equal batch, the largest batch of each, and the speed at both.

What `attention`, `offload` and `combined` have in common; they say which setups, and what is claimed of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from michelangelo.llm.bench import predicting, probing
from michelangelo.llm.bench.experiment import Deadline, Outcome, Point, Quantity, Series, Task, filled
from michelangelo.llm.finetune import batch_finder
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Goals", "Pair", "measure", "predict"]

_SAVED: Final = "memory saved at equal batch"
_LARGER: Final = "larger largest batch"
_SPEED: Final = "speed at equal batch"
_GAIN: Final = "speed at the largest batch"
_PRECISION = 0.04
"""Largest batches are found to this share: the next larger one that was tried did not fit."""


@dataclass(frozen=True, slots=True)
class Goals:
    """Of the published claims; None: nothing is claimed."""

    saved: float | None = None
    larger: float | None = None
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """`improved` against `baseline`; micro_batch is set by the comparison."""

    baseline: TrainingSetup
    improved: TrainingSetup
    names: tuple[str, str]
    goals: Goals = field(default_factory=Goals)
    """That hold for large models on GPUs."""

    @property
    def setups(self) -> Mapping[str, TrainingSetup]:
        return dict(zip(self.names, (self.baseline, self.improved), strict=True))

    @property
    def title(self) -> str:
        return f"{self.names[1]} against {self.names[0]}"


def predict(task: Task, pair: Pair) -> list[Quantity]:
    """All figures of the comparison by the plan alone."""
    plan = predicting.Plan(task)
    equal = _equal_batch(plan, pair)
    found: list[Quantity] = []
    by_case: dict[str, dict[str, float | None]] = {}
    for name, setup in pair.setups.items():
        largest = plan.largest_batch(setup)
        at_equal = plan.of(setup.replace(micro_batch=equal))
        at_largest = plan.of(setup.replace(micro_batch=max(1, largest)))
        by_case[name] = values = {
            "memory": at_equal.allocated_bytes,
            "largest": largest,
            "speed": at_equal.tokens_per_second,
            "top speed": at_largest.tokens_per_second,
        }
        found += [
            Quantity(case=name, name=_memory_at(equal), unit="bytes", predicted=values["memory"]),
            Quantity(case=name, name="largest batch", unit="sequences", predicted=values["largest"]),
            Quantity(case=name, name=_speed_at(equal), unit="tokens/s", predicted=values["speed"]),
            Quantity(case=name, name=_GAIN, unit="tokens/s", predicted=values["top speed"]),
        ]
    base, better = (by_case[name] for name in pair.names)
    saved = _saved(base["memory"], better["memory"])
    ratios = [
        (_SAVED, "share", saved, pair.goals.saved),
        (_LARGER, "times", _ratio(better["largest"], base["largest"]), pair.goals.larger),
        (_SPEED, "times", _ratio(better["speed"], base["speed"]), None),
        (_GAIN, "times", _ratio(better["top speed"], base["top speed"]), pair.goals.gain),
    ]
    found += [
        Quantity(case=pair.title, name=name, unit=unit, predicted=value, goal=goal)  # type: ignore[arg-type]
        for name, unit, value, goal in ratios
    ]
    return found


def measure(task: Task, pair: Pair, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome:
    """The same by measuring; what the time does not suffice for is left out."""
    probe, plan = probing.Probe(task), predicting.Plan(task)
    equal = _equal_batch(plan, pair)
    measured: dict[tuple[str, str], float | None] = {}
    largest: dict[str, int] = {}
    top: dict[str, float] = {}
    left_out: list[str] = []
    for name, setup in pair.setups.items():
        found = probe.measure(setup.replace(micro_batch=equal))
        if not found.out_of_memory:
            measured[name, _memory_at(equal)] = found.allocated_bytes
            measured[name, _speed_at(equal)] = found.tokens_per_second
    for name, setup in pair.setups.items():
        if deadline.is_over:
            left_out.append(f"the largest batch with {name}")
            continue
        largest[name] = _largest(probe, plan, setup, task, deadline)
        measured[name, "largest batch"] = largest[name]
        if largest[name]:
            top[name] = probe.measure(setup.replace(micro_batch=largest[name])).tokens_per_second
            measured[name, _GAIN] = top[name]
    base, better = pair.names
    memory = [measured.get((name, _memory_at(equal))) for name in pair.names]
    speed = [measured.get((name, _speed_at(equal))) for name in pair.names]
    measured[pair.title, _SAVED] = _saved(*memory)
    measured[pair.title, _LARGER] = _ratio(largest.get(better), largest.get(base))
    measured[pair.title, _SPEED] = _ratio(speed[1], speed[0])
    measured[pair.title, _GAIN] = _ratio(top.get(better), top.get(base))
    quantities = filled(predicted, measured)
    return Outcome(
        quantities=quantities,
        series=_bars(quantities, pair, equal),
        conclusions=_conclusions(task, pair, {q.key: q for q in quantities}, equal),
        measurements=probe.all(),
        left_out=left_out,
    )


def _largest(probe: probing.Probe, plan: predicting.Plan, setup: TrainingSetup, task: Task, deadline: Deadline) -> int:
    """Tries stop, too, when the time is over: the largest that was seen to fit."""
    seen = [0]

    def attempt(batch: int) -> int:
        if deadline.is_over:
            return 0
        peak = probe.peak_bytes(setup.replace(micro_batch=batch))
        seen.append(batch if peak else 0)
        return peak

    predicted = plan.largest_batch(setup)
    batch_finder.find(
        attempt,
        predicted=max(1, predicted),
        limit=max(8, 4 * predicted),
        capacity_bytes=plan.usable_bytes,
        precision=_PRECISION,
    )
    return max(seen)


def _equal_batch(plan: predicting.Plan, pair: Pair) -> int:
    """Four fifths of what the plan says fits with the baseline: it has to fit in spite of the plan's error."""
    return max(1, int(0.8 * plan.largest_batch(pair.baseline)))


def _memory_at(batch: int) -> str:
    return f"memory at batch {batch}"


def _speed_at(batch: int) -> str:
    return f"speed at batch {batch}"


def _saved(base: float | None, better: float | None) -> float | None:
    return None if not base or better is None else 1.0 - better / base


def _ratio(better: float | None, base: float | None) -> float | None:
    return None if better is None or not base else better / base


def _bars(quantities: Sequence[Quantity], pair: Pair, equal: int) -> list[Series]:
    wanted = {
        _memory_at(equal): ("memory (GB)", 1e9),
        "largest batch": ("largest batch", 1.0),
        _GAIN: ("tokens/s", 1.0),
    }
    series = []
    for name, (label, unit) in wanted.items():
        for position, case in enumerate(pair.names):
            for q in quantities:
                if q.key == (case, name):
                    point = Point(
                        float(position),
                        None if q.measured is None else q.measured / unit,
                        None if q.predicted is None else q.predicted / unit,
                    )
                    series.append(Series(name=case, x_label="", y_label=label, points=(point,)))
    return series


def _conclusions(task: Task, pair: Pair, by_key: Mapping[tuple[str, str], Quantity], equal: int) -> list[str]:
    said = []
    saved, larger, gain = (by_key[pair.title, name] for name in (_SAVED, _LARGER, _GAIN))
    if saved.measured is not None:
        said.append(
            f"At batch {equal}, {pair.title} saves {saved.measured:.0%} of the memory of tensors{_of_goal(saved)}."
        )
    if larger.measured is not None:
        said.append(f"The largest batch is {larger.measured:.1f} times as large{_of_goal(larger)}.")
    if gain.measured is not None:
        said.append(f"At the largest batch of each, it is {gain.measured:.2f} times as fast.")
    if task.device == "cpu":
        said.append(
            "On a CPU the host's memory is the device's: these figures show that it runs, not what a GPU saves."
        )
    return said


def _of_goal(quantity: Quantity) -> str:
    if quantity.goal is None:
        return ""
    goal = f"{quantity.goal:.0%}" if quantity.unit == "share" else f"{quantity.goal:g} times"
    return f" (claimed: {goal}; {'reached' if quantity.reaches_goal else 'not reached'})"
