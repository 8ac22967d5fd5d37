"""What came of a job, added up from the records of its shards and of its replicas: for people and for programs.

Counts are of the whole job, however often it was resumed; speeds are of the last session; money is of all sessions. It
draws nothing: that is `page`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from michelangelo.llm.planner import hardware, prices
from michelangelo.llm.scorer.config import ReplicaConfig, ScoreConfig
from michelangelo.llm.scorer.sketch import Sketch

__all__ = ["Session", "Totals", "add_up", "make", "price_of"]

_MAX_REASONS: Final = 20
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(slots=True)
class Totals:
    """Of all shards that are done."""

    rows: int = 0
    failed: int = 0
    lost: int = 0
    """Rows that an engine had and did not give back, each of which was scored again."""
    damaged: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    correct: int = 0
    answered: int = 0
    latency: Sketch = field(default_factory=Sketch)
    first_token: Sketch = field(default_factory=Sketch)
    reasons: dict[str, int] = field(default_factory=dict)
    spans: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    """When each replica of each session worked, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the command that came to its end."""

    number: int
    seconds: float
    """From the start of the first replica on."""
    scoring_seconds: float
    """From when the first engine was open on."""
    replicas: Sequence[Mapping[str, Any]]


def add_up(records: Iterable[Mapping[str, Any]]) -> Totals:
    """Records of shards that are done."""
    totals = Totals()
    for record in records:
        for name in ("rows", "failed", "lost", "damaged", "correct", "answered"):
            setattr(totals, name, getattr(totals, name) + record[name])
        for name in ("prompt_tokens", "output_tokens", "cached_tokens"):
            setattr(totals, name, getattr(totals, name) + int(record[name]))
        totals.cost_usd += record["cost_usd"]
        totals.latency.merge(Sketch.from_json(record["latency"]))
        totals.first_token.merge(Sketch.from_json(record["first_token"]))
        for reason, count in record["reasons"].items():
            if reason in totals.reasons or len(totals.reasons) < 1000:
                totals.reasons[reason] = totals.reasons.get(reason, 0) + count
        who = record["session"], record["by"].partition("-")[2]
        began, ended = totals.spans.get(who, (record["began"], record["ended"]))
        totals.spans[who] = min(began, record["began"]), max(ended, record["ended"])
    return totals


def make(config: ScoreConfig, totals: Totals, sessions: Sequence[Session]) -> dict[str, Any]:
    """JSON. `sessions`: those that came to their end, the last one is this one."""
    last = sessions[-1]
    seconds = last.scoring_seconds
    scored = {name: int(_sum(last, name)) for name in ("rows", "prompt_tokens", "output_tokens")}
    report: dict[str, Any] = {
        "task": config.task,
        "output": config.output.path,
        "rows": {
            "total": totals.rows,
            "scored": totals.rows - totals.failed,
            "failed": totals.failed,
            "rescored": totals.lost,
            "damaged_lines": totals.damaged,
        },
        "errors": [
            {"reason": reason, "rows": count}
            for reason, count in sorted(totals.reasons.items(), key=lambda item: (-item[1], item[0]))[:_MAX_REASONS]
        ],
        "tokens": {
            "prompt": totals.prompt_tokens,
            "output": totals.output_tokens,
            "cached": totals.cached_tokens,
        },
        "sessions": max([number for number, _ in totals.spans] + [last.number]),
        "session": {
            "seconds": last.seconds,
            "scoring_seconds": seconds,
            **scored,
            "output_tokens_per_second": _rate(scored["output_tokens"], seconds),
            "prompt_tokens_per_second": _rate(scored["prompt_tokens"], seconds),
            "rows_per_second": _rate(scored["rows"], seconds),
        },
        "latency_seconds": _spread(totals.latency),
        "first_token_seconds": _spread(totals.first_token),
        "replicas": [_replica(one, config.replicas[one["group_number"]]) for one in last.replicas],
        "utilisation": _utilisation(last.replicas),
        "cost": _cost(config, totals, sessions),
    }
    if totals.answered:
        report["accuracy"] = {"share": totals.correct / totals.answered, "rows": totals.answered}
    return report


def price_of(config: ReplicaConfig) -> tuple[float | None, str]:
    """USD per hour of one replica, and where that is from. Raises SettingsError if the hardware is unknown."""
    if config.price_per_hour is not None:
        return config.price_per_hour, "given"
    if not config.hardware:
        return None, ""
    kind, count = hardware.parse(config.hardware)
    price = prices.bundled().typical(kind.name)
    if price is None:
        return None, f"no price is known for {kind.name}"
    return price.per_gpu_hour * (count or 1), f"{price.provider}, {price.date}: {price.per_gpu_hour} per GPU"


def _replica(one: Mapping[str, Any], config: ReplicaConfig) -> dict[str, Any]:
    seconds = one.get("seconds", 0.0)
    made = {name: one[name] for name in ("name", "group", "engine", "capacity", "shards", "error")}
    return {
        **made,
        "runner": config.runner,
        "rows": int(one.get("rows", 0)),
        "failed": int(one.get("failed", 0)),
        "output_tokens": int(one.get("output_tokens", 0)),
        "output_tokens_per_second": _rate(one.get("output_tokens", 0), seconds),
        "open_seconds": one["open_seconds"],
        "live_seconds": one["live_seconds"],
        "busy": _rate(one.get("busy_seconds", 0.0), seconds),
        "utilisation": _rate(one.get("flight_seconds", 0.0), seconds * max(1, one["capacity"])),
    }


def _utilisation(replicas: Sequence[Mapping[str, Any]]) -> float | None:
    """Requests in flight on average, of those that the engines could have had."""
    room = sum(one.get("seconds", 0.0) * max(1, one["capacity"]) for one in replicas)
    return _rate(sum(one.get("flight_seconds", 0.0) for one in replicas), room)


def _cost(config: ScoreConfig, totals: Totals, sessions: Sequence[Session]) -> dict[str, Any]:
    """Of hardware while replicas lived, or what engines were charged."""
    priced = [price_of(group) for group in config.replicas]
    hardware_usd: float | None = None
    if any(price is not None for price, _ in priced):
        known = {session.number for session in sessions}
        hours = [
            (one["live_seconds"] / 3600, one["group_number"])
            for session in sessions
            for one in session.replicas
            if one["group_number"] < len(priced)
        ]
        # Of a session that was killed the records of shards tell when its replicas worked.
        hours += [
            ((end - start) / 3600, 0) for (number, _), (start, end) in totals.spans.items() if number not in known
        ]
        hardware_usd = sum(hour * (priced[group][0] or 0.0) for hour, group in hours)
    paid = (hardware_usd or 0.0) + totals.cost_usd
    has_cost = hardware_usd is not None or totals.cost_usd > 0
    whole = totals.prompt_tokens + totals.output_tokens
    return {
        "currency": "USD",
        "hardware": hardware_usd,
        "engines": totals.cost_usd or None,
        "total": paid if has_cost else None,
        "per_million_output_tokens": paid / totals.output_tokens * 1e6 if has_cost and totals.output_tokens else None,
        "per_million_tokens": paid / whole * 1e6 if has_cost and whole else None,
        "prices": [source for _, source in priced if source],
    }


def _spread(sketch: Sketch) -> dict[str, float | None]:
    return {"mean": sketch.mean, **{name: sketch.quantile(share) for name, share in _QUANTILES.items()}}


def _sum(session: Session, name: str) -> float:
    return float(sum(one.get(name, 0) for one in session.replicas))


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds > 0 else None
