"""What is known of a run up to one of its steps: read from its events and its report, for the model card.

Measured values are of the events, so they fit the step that is exported; the report is only of the run's end.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from michelangelo import errors
from michelangelo.llm.finetune import running
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.sinks import events_file
from michelangelo.llm.planner import cost, hardware, prices

__all__ = ["Cost", "Facts", "read"]


@dataclass(frozen=True, slots=True)
class Cost:
    """By the catalogue, from measured hours."""

    gpu_hours: float
    energy_kwh: float
    """At most: at the limit of the cards, without the machines around them."""
    money: float | None
    currency: str
    price: str
    """Whose, and of when."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Empty, None or NaN: not known."""

    losses: tuple[tuple[int, float], ...]
    """Step and training loss, in nats per trained token."""
    validation: tuple[tuple[int, float], ...]
    num_tokens: int
    """Positions, all processes."""
    hours: float
    """Of steps; evaluations and checkpoints are no part."""
    tokens_per_second: float
    """Of the typical step."""
    mfu: float
    peak_memory_bytes: int
    num_parameters: int
    num_trained: int
    device: str
    num_workers: int
    plan: Mapping[str, Any]
    data: Mapping[str, Any]
    """Counts of rows, of the whole run."""
    alerts: Mapping[str, int]
    """How often, by kind."""
    cost: Cost | None


def read(run: Path, config: FinetuneConfig, step: int) -> Facts:
    """Raises LlmError if the events are damaged."""
    events = [event for event in events_file.read(run / running.EVENTS) if event["step"] <= step]
    steps = [event for event in events if event["event"] == "Stepped"]
    started: Mapping[str, Any] = next((event for event in reversed(events) if event["event"] == "Started"), {})
    report = _report(run)
    typical = steps[1:] or steps  # the first one compiles and warms up
    hours = math.fsum(event["seconds"] for event in steps) / 3600
    plan = report.get("plan") or started.get("plan") or {}
    alerts = [event["kind"] for event in events if event["event"] == "Alert"]
    return Facts(
        losses=_losses(steps),
        validation=_losses([event for event in events if event["event"] == "Evaluated"]),
        num_tokens=sum(event["num_tokens"] for event in steps),
        hours=hours,
        tokens_per_second=_median(event["tokens_per_second"] for event in typical),
        mfu=_median(event["mfu"] for event in typical),
        peak_memory_bytes=max((event["memory_bytes"] for event in steps), default=0),
        num_parameters=started.get("num_parameters", 0),
        num_trained=started.get("num_trained_parameters", 0),
        device=str(report.get("device") or plan.get("hardware") or ""),
        num_workers=config.parallel.num_workers,
        plan=plan,
        data=report.get("data") or {},
        alerts={kind: alerts.count(kind) for kind in dict.fromkeys(alerts)},
        cost=_cost(str(plan.get("hardware") or ""), hours, config.parallel.num_workers),
    )


def _report(run: Path) -> dict[str, Any]:
    """Empty for a run that has not ended."""
    path = run / running.REPORT
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as e:
        raise errors.LlmError(f"{path}: cannot be read: {e}; move it away, and the card is made without it") from e
    return found if isinstance(found, dict) else {}


def _losses(events: list[dict[str, Any]]) -> tuple[tuple[int, float], ...]:
    return tuple((event["step"], event["loss"]) for event in events if math.isfinite(event["loss"]))


def _median(values: Any) -> float:
    known = [value for value in values if math.isfinite(value)]
    return statistics.median(known) if known else math.nan


def _cost(name: str, hours: float, num_gpus: int) -> Cost | None:
    """None where the catalogue does not know the hardware."""
    if not name or not hours:
        return None
    known = hardware.load(name)
    table = prices.bundled()
    price, paid = cost.offer_for(table, known.name, num_gpus)
    return Cost(
        gpu_hours=hours * num_gpus,
        energy_kwh=hours * num_gpus * known.tdp_watts / 1000,
        money=price.per_gpu_hour * hours * paid if price else None,
        currency=table.currency,
        price=f"{price.provider}, {price.date}" if price else "",
    )
