"""`mactl llm plan`: what a training or inference run needs and costs, before it runs. No server, no GPU, no torch.

It reads the words and prints; everything else is in `michelangelo.llm.planner`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from michelangelo import errors
from michelangelo.cli import llm_plan_inputs as inputs
from michelangelo.cli import llm_plan_options as options_of
from michelangelo.cli import llm_plan_tables as tables
from michelangelo.cli import output
from michelangelo.llm import model_shape
from michelangelo.llm.planner import chart, explain, inference, launch_config, rejections, search
from michelangelo.llm.planner import plan as planning
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.plan import Plan
from michelangelo.llm.planner.search import Found

__all__ = ["plan"]

_DOES_NOT_FIT: Final = 1


@click.command()
@click.argument("model", metavar="MODEL")
@options_of.machine_options
@options_of.training_options
@options_of.output_options
@options_of.generation_options
def plan(model: str, **options: Any) -> None:
    """Say what a run of MODEL needs and costs, before it runs: memory, speed, time, energy, money, with intervals.

    MODEL is a name of `mactl llm models`, a config.json, or a folder with one. Exit code: 0 if it fits (also tightly),
    1 if nothing does, 2 for what is wrong in the call.

    \b
    Example:
      mactl llm plan llama-3.1-8b --method lora --hardware h100 --sequence-length 4096 --tokens 100M
      mactl llm plan llama-3.1-70b --hardware h100 --hardware h200 --search --plot plan.svg
      mactl llm plan qwen3-8b --method full --hardware h100:8 --micro-batch 2 --explain
      mactl llm plan llama-3.1-8b --method lora --search -o config > config.yaml
      mactl llm plan mixtral-8x7b --inference --hardware h100:2 --input-tokens 4096 --output-tokens 700
    """
    shape = model_shape.load(model)
    fits = True
    if options["plot"]:
        if not options["searched"]:
            raise errors.SettingsError("--plot: only with --search")
        chart.check(options["plot"])
    if options["generates"]:
        fits = _inference(shape, options)
    elif options["searched"]:
        fits = _search(shape, options)
    else:
        fits = _single(shape, options)
    if not fits:
        sys.exit(_DOES_NOT_FIT)


def _single(shape: model_shape.ModelShape, options: Mapping[str, Any]) -> bool:
    kind, gpus = _one_machine(options)
    setup = inputs.setup_of(options, kind, gpus or 1)
    made = planning.make(shape, setup, kind, inputs.assumptions_of(options))
    healing = rejections.cures(shape, setup, kind, inputs.assumptions_of(options)) if made.verdict == "no" else []
    _write_deepspeed(made, options)
    if options["output_format"] == "config":
        output.print_data(launch_config.finetune(made), "yaml")
    elif options["output_format"] == "table":
        tables.print_plan(made)
        if healing:
            print(f"would fit with {' or '.join(healing[:4])}")
        if options["explained"]:
            print()
            tables.print_explanation(shape, made)
    else:
        extra = {"explanation": [line.to_dict() for line in explain.lines(shape, made)]} if options["explained"] else {}
        wouldfit = {"wouldFitWith": healing} if healing else {}
        output.print_data({**made.to_dict(), **wouldfit, **extra}, options["output_format"])
    return made.verdict != "no"


def _search(shape: model_shape.ModelShape, options: Mapping[str, Any]) -> bool:
    assumptions = inputs.assumptions_of(options)
    by_count: dict[int, list[Hardware]] = {}
    for kind, count in inputs.machines_of(options):
        by_count.setdefault(count, []).append(kind)
    found = search.merged(
        [
            search.run(shape, inputs.space_of(options, (count,) if count else ()), kinds, assumptions)
            for count, kinds in by_count.items()
        ]
    )
    chosen = found.cheapest
    if options["plot"] and chosen is not None:
        chart.draw(found, options["plot"])
    if chosen is not None:
        _write_deepspeed(found.plan(chosen), options)
    if options["output_format"] == "config":
        if chosen is None:
            raise errors.DeviceMemoryError(f"{shape.name}: none of {found.num_tried:,} setups fits; -o table says why")
        output.print_data(launch_config.finetune(found.plan(chosen)), "yaml")
    elif options["output_format"] == "table":
        tables.print_found(found)
        if options["explained"] and chosen is not None:
            print()
            tables.print_explanation(shape, found.plan(chosen))
    else:
        output.print_data(_found_data(found), options["output_format"])
    return chosen is not None


def _inference(shape: model_shape.ModelShape, options: Mapping[str, Any]) -> bool:
    if options["output_format"] == "config":
        raise errors.SettingsError("-o config: a plan of inference has no configuration to train with")
    kind, gpus = _one_machine(options)
    assumptions = inputs.assumptions_of(options)
    made = inference.make(
        shape, inputs.inference_of(options, gpus or 1), kind, assumptions.prices, assumptions.provider
    )
    if options["output_format"] == "table":
        tables.print_inference(made)
        if options["explained"]:
            tables.print_inference_explanation(inference.explained(shape, made))
    else:
        names = ("name", "value", "formula", "source")
        lines = [dict(zip(names, line, strict=True)) for line in inference.explained(shape, made)]
        output.print_data(
            made.to_dict() | ({"explanation": lines} if options["explained"] else {}), options["output_format"]
        )
    return made.fits


def _one_machine(options: Mapping[str, Any]) -> Any:
    machines = inputs.machines_of(options)
    if len(machines) > 1:
        raise errors.SettingsError("--hardware: several kinds can be compared with --search only")
    return machines[0]


def _found_data(found: Found) -> dict[str, Any]:
    chosen = {name: getattr(found, name) for name in ("cheapest", "fastest", "smallest")}
    return {
        "model": found.shape.name,
        "tried": found.num_tried,
        "fitting": len(found.candidates),
        **{name: found.plan(one).to_dict() if one else None for name, one in chosen.items()},
        "front": [
            {
                "hardware": one.hardware.name,
                "setup": one.setup.to_dict(),
                "peakBytes": one.peak_bytes,
                "hostBytes": one.host_bytes,
                "tokensPerSecond": one.tokens_per_second,
                "mfu": one.mfu,
                "hours": one.hours,
                "money": one.money or None,
            }
            for one in found.front()
        ],
        "rejected": [
            {
                "hardware": group.hardware,
                "place": group.place,
                "component": group.component,
                "count": group.count,
                "nearest": group.nearest.setup.to_dict(),
                "why": rejections.describe(group),
                "wouldFitWith": list(group.cures),
            }
            for group in rejections.grouped(found.shape, found.rejected, found.assumptions)
        ],
        "impossible": [{"why": why, "count": count} for why, count in found.impossible],
    }


def _write_deepspeed(made: Plan, options: Mapping[str, Any]) -> None:
    path = options["deepspeed"]
    if not path:
        return
    document = launch_config.deepspeed(made.setup)
    if not document:
        raise errors.SettingsError(
            f"--deepspeed: sharding is {made.setup.sharding}, and DeepSpeed does zero1, zero2, zero3"
        )
    try:
        Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as e:
        raise errors.SettingsError(f"--deepspeed {path}: cannot be written: {e.strerror or e}") from e
