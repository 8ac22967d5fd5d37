"""How a plan, a search and an inference plan are shown in a terminal. Text only; the numbers are the planner's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from michelangelo.cli import colours, table
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import explain, rejections
from michelangelo.llm.planner.cost import Cost, Interval
from michelangelo.llm.planner.inference import InferencePlan
from michelangelo.llm.planner.memory import Component
from michelangelo.llm.planner.plan import Plan
from michelangelo.llm.planner.search import Candidate, Found
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["print_explanation", "print_found", "print_inference", "print_inference_explanation", "print_plan"]

_GIB: Final = 1 << 30
_BAR: Final = 30
_MAX_FRONT: Final = 12
_MAX_GROUPS: Final = 8
_VERDICTS: Final = {"fits": "green", "tight": "yellow", "no": "red"}


def print_plan(plan: Plan) -> None:
    """Memory by part, time by phase, cost."""
    print(f"{plan.model} on {plan.setup.num_gpus} x {plan.hardware.title}: {_named(plan.setup)}\n")
    _print_memory(plan)
    speed = plan.throughput
    print(f"\nSpeed ({speed.stack})")
    rate = Interval(speed.tokens_per_second_per_gpu, speed.low, speed.high).scaled(plan.setup.num_gpus)
    _print_pairs(
        [
            ("tokens/s", _interval(rate, ",.0f")),
            ("per GPU", f"{speed.tokens_per_second_per_gpu:,.0f}"),
            ("step", f"{speed.seconds_per_step:,.3f} s for {speed.tokens_per_step:,} tokens"),
            ("MFU, HFU", f"{speed.mfu:.1%}, {speed.hfu:.1%}"),
        ]
    )
    print()
    longest = max(phase.seconds for phase in speed.phases)
    rows = [[p.name, _milliseconds(p.seconds), _bar(p.seconds / longest)] for p in speed.phases]
    table.print_rows(["PHASE", "TIME", ""], rows)
    print("\nCost")
    _print_pairs(_cost_rows(plan.cost))
    _print_calibration(plan)


def print_explanation(shape: ModelShape, plan: Plan) -> None:
    """Every number with its formula and source."""
    topic = ""
    for line in explain.lines(shape, plan):
        if line.topic != topic:
            topic = line.topic
            print(f"{'' if line.topic == 'model' else chr(10)}{topic.capitalize()}")
        print(f"  {line.name} = {line.value}")
        print(f"    {line.formula}")
        print(f"    source: {line.source}")


def print_found(found: Found) -> None:
    """What a search found: three choices, the front, and why the others fail."""
    tried, fitting = found.num_tried, len(found.candidates)
    print(f"{found.shape.name}: {tried:,} setups, of which {fitting:,} fit\n")
    currency = found.assumptions.prices.currency
    chosen = [(name, getattr(found, name)) for name in ("cheapest", "fastest", "smallest")]
    front = [("", one) for one in found.front()]
    if fitting:
        titles = ["", "GPUS", "HARDWARE", "METHOD", "SETUP", "BATCH", "MEMORY", "TOKENS/S", "MFU", "HOURS", currency]
        rows = [_candidate_row(name, one) for name, one in [*chosen, *front[:_MAX_FRONT]]]
        table.print_rows(titles, rows)
        if len(front) > _MAX_FRONT:
            print(f"\n{len(front) - _MAX_FRONT} more that no other setup beats: -o json shows them")
    groups = rejections.grouped(found.shape, found.rejected, found.assumptions)
    if groups or found.impossible:
        print("\nWhat fails")
    for group in groups[:_MAX_GROUPS]:
        setup = group.nearest.setup
        print(f"  {group.count:,} on {group.hardware}: the nearest {rejections.describe(group)}")
        print(f"    ({setup.num_gpus} GPUs, {_named(setup)})")
    for reason, count in found.impossible[:_MAX_GROUPS]:
        print(f"  {count:,} cannot be: {reason}")


def print_inference(plan: InferencePlan) -> None:
    """Memory, the curve over the batch, money."""
    setup = plan.setup
    asked = f"{setup.input_tokens:,} tokens in, {setup.output_tokens:,} out"
    print(f"{plan.model} on {setup.tensor_parallel} x {plan.hardware.title}, {setup.precision}: {asked}\n")
    print("Memory of each GPU")
    _print_pairs(
        [
            ("weights", f"{plan.weight_bytes / _GIB:,.2f} GiB"),
            ("left for the cache", f"{plan.cache_bytes / _GIB:,.2f} GiB of {plan.hardware.memory_bytes / _GIB:,.2f}"),
            ("cache of a token", f"{plan.cache_bytes_per_token / 1024:,.0f} KiB"),
            ("sequences at once", f"{plan.max_batch:,}"),
            ("longest sequence", f"{plan.max_context:,} tokens"),
        ]
    )
    if plan.best is None:
        print(_verdict("no", f"\n{plan.model} does not fit: more GPUs, or --weights fp8 or int4"))
        return
    top = max(point.output_tokens_per_second for point in plan.points)
    print()
    table.print_rows(
        ["BATCH", "OUTPUT TOKENS/S", "PER USER", "STEP", "BOUND BY", ""],
        [
            [
                f"{point.batch:,}{' knee' if point.batch == plan.knee else ''}",
                f"{point.output_tokens_per_second:,.0f}",
                f"{point.per_sequence:,.1f}",
                f"{point.step_seconds * 1000:,.1f} ms",
                point.bound,
                _bar(point.output_tokens_per_second / top),
            ]
            for point in plan.points
        ],
    )
    print()
    best = Interval(plan.best.output_tokens_per_second, plan.low, plan.high)
    pairs = [
        ("output tokens/s", f"{_interval(best, ',.0f')} with {plan.best.batch:,} at once"),
        ("first token after", f"{plan.time_to_first_token * 1000:,.0f} ms, alone"),
    ]
    if plan.price is not None:
        per_output, per_total = plan.money_per_million_output, plan.money_per_million_total
        pairs.append(("a million tokens", f"{per_output:,.3f} {plan.currency} of output, {per_total:,.3f} in all"))
        pairs.append(("price", _price(plan.price.per_gpu_hour, plan.price.provider, plan.price.date, plan.currency)))
    _print_pairs(pairs)


def print_inference_explanation(lines: Sequence[tuple[str, str, str, str]]) -> None:
    """Name, value, formula, source of each."""
    print("\nWhy")
    for name, value, formula, source in lines:
        print(f"  {name} = {value}")
        print(f"    {formula}")
        print(f"    source: {source}")


def _print_memory(plan: Plan) -> None:
    print("Memory of each GPU")
    whole = plan.capacity_bytes
    parts = [*plan.memory.gpu]
    table.print_rows(["PART", "GIB", ""], [_memory_row(part, whole) for part in parts])
    bounds = f"{plan.low_bytes / _GIB:,.1f} to {plan.high_bytes / _GIB:,.1f} in {plan.memory.level:.0%} of runs"
    print(f"peak {plan.peak_bytes / _GIB:,.2f} GiB ({bounds}) of {whole / _GIB:,.2f}")
    if plan.memory.host:
        print("\nMemory of each host")
        room = plan.host_capacity_bytes
        table.print_rows(["PART", "GIB", ""], [_memory_row(part, room) for part in plan.memory.host])
        print(f"in all {plan.memory.host_bytes / _GIB:,.2f} GiB of {room / _GIB:,.2f}")
    print(_verdict(plan.verdict, _verdict_text(plan)))


def _verdict_text(plan: Plan) -> str:
    if plan.verdict == "fits":
        return f"fits: {plan.margin_bytes / _GIB:,.1f} GiB are left"
    if plan.verdict == "tight":
        return f"tight: {plan.margin_bytes / _GIB:,.1f} GiB are left, less than the estimate may be off"
    if plan.margin_bytes < 0:
        return f"does not fit: {-plan.margin_bytes / _GIB:,.1f} GiB are missing on each GPU"
    return f"does not fit: {-plan.host_margin_bytes / _GIB:,.1f} GiB are missing on each host"


def _cost_rows(cost: Cost) -> list[tuple[str, str]]:
    rows = [
        ("tokens", f"{cost.tokens:,.0f} in {cost.steps:,} steps"),
        ("hours", _interval(cost.hours, ",.2f")),
    ]
    if cost.money is None or cost.price is None:
        rows.append(("rent", f"no price is known; GPU hours: {_interval(cost.gpu_hours, ',.2f')} (--price)"))
    else:
        rows.append(("rent", f"{_interval(cost.money, ',.2f')} {cost.currency}"))
        text = _price(cost.price.per_gpu_hour, cost.price.provider, cost.price.date, cost.currency)
        if cost.price_high > cost.price_low:
            text += f"; all providers {cost.price_low:,.2f} to {cost.price_high:,.2f}"
        rows.append(("price", text))
    energy = f"{_interval(cost.energy_kwh, ',.1f')} kWh, {cost.electricity.value:,.2f} USD (PUE {cost.power.pue})"
    rows.append(("energy", energy))
    return rows


def _print_calibration(plan: Plan) -> None:
    factors = plan.factors
    if not factors.is_calibrated:
        print("\nNot calibrated: no run on this hardware is known yet (mactl llm tune)")
        return
    runs = max(factors.memory_runs, factors.time_runs)
    where = f"of setups like this ({factors.regime})" if factors.regime else "of other setups"
    newest = f"the newest of {factors.date}" if factors.date else "of unknown days"
    print(f"\nCalibrated by {runs} runs {where} on {plan.hardware.name}, {newest}:")
    print(f"  memory x {factors.memory:.3f}, time x {factors.time:.3f}")


def _candidate_row(name: str, one: Candidate | None) -> list[str]:
    assert one is not None
    return [
        name,
        str(one.setup.num_gpus),
        one.hardware.name,
        one.setup.method,
        _choices(one.setup),
        f"{one.setup.micro_batch} x {one.setup.gradient_accumulation}",
        f"{one.peak_bytes / _GIB:,.1f} GiB",
        f"{one.tokens_per_second:,.0f}",
        f"{one.mfu:.0%}",
        f"{one.hours:,.2f}",
        f"{one.money:,.2f}" if one.money else "?",
    ]


def _choices(setup: TrainingSetup) -> str:
    """What is not the plainest way, in few words."""
    words = [
        setup.sharding if setup.sharding != "none" else "",
        f"offload {setup.offload}" if setup.offload != "none" else "",
        f"checkpointing {setup.checkpointing}" if setup.checkpointing != "none" else "",
        "eager attention" if setup.attention == "eager" else "",
        "plain CE" if setup.cross_entropy == "plain" else "",
        setup.optimizer if setup.optimizer != "adamw" else "",
        "compiled" if setup.compiled else "",
    ]
    return ", ".join(filter(None, words)) or "plain"


def _named(setup: TrainingSetup) -> str:
    adapters = f" of rank {setup.lora_rank}" if setup.method != "full" else ""
    batch = f"batch {setup.micro_batch} x {setup.sequence_length:,} tokens"
    if setup.gradient_accumulation > 1:
        batch += f" x {setup.gradient_accumulation} passes"
    split = f", tensor parallel {setup.tensor_parallel}" if setup.tensor_parallel > 1 else ""
    return f"{setup.method}{adapters}, {batch}, {setup.precision}, {_choices(setup)}{split}"


def _print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in pairs)
    for name, text in pairs:
        print(f"  {name:<{width}}   {text}")


def _memory_row(part: Component, whole: int) -> list[str]:
    return [part.name, f"{part.bytes / _GIB:,.2f}", _bar(part.bytes / whole)]


def _bar(share: float) -> str:
    return "#" * max(1, round(min(1.0, share) * _BAR)) if share > 0 else ""


def _interval(value: Interval, form: str) -> str:
    return f"{value.value:{form}} ({value.low:{form}} to {value.high:{form}})"


def _price(per_hour: float, provider: str, date: str, currency: str) -> str:
    return f"{per_hour:,.2f} {currency} per GPU hour ({', '.join(filter(None, (provider, date)))})"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _verdict(verdict: str, text: str) -> str:
    return colours.paint(click.unstyle(text), _VERDICTS[verdict], sys.stdout)
