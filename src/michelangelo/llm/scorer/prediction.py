"""What the planner says of a job's throughput: before it runs for the tokens expected, after it for those measured.

Where the planner cannot say anything it says why. It measures nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from michelangelo import errors
from michelangelo.llm import model_shape
from michelangelo.llm.planner import hardware, inference, prices
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.inference import InferenceSetup
from michelangelo.llm.scorer.config import ScoreConfig

__all__ = ["after", "at", "before"]


def before(config: ScoreConfig) -> dict[str, Any]:
    """Of one replica, at the batch that fits. `message` where there is none."""
    wanted = config.prediction
    if not wanted.input_tokens or not wanted.output_tokens:
        return {"message": "prediction.input_tokens and output_tokens say what to expect of a row: they are not set"}
    return _predicted(config, wanted.input_tokens, wanted.output_tokens, 0)


def at(config: ScoreConfig, batch: int, input_tokens: float, output_tokens: float) -> dict[str, Any]:
    """Of one replica with `batch` requests in flight, for so many tokens of a row on average."""
    if not output_tokens:
        return {"message": "no tokens were made"}
    return _predicted(config, max(1, round(input_tokens)), max(1, round(output_tokens)), batch)


def after(config: ScoreConfig, report: Mapping[str, Any]) -> dict[str, Any]:
    """For the mean tokens of a row and the mean number in flight, beside what was measured."""
    rows = report["rows"]["total"]
    tokens = report["tokens"]
    if not rows or not tokens["output"]:
        return {"message": "no tokens were made"}
    replicas = [one for one in report["replicas"] if one["utilisation"]]
    if not replicas:
        return {"message": "nothing was scored in this session"}
    flight = sum(one["utilisation"] * one["capacity"] for one in replicas) / len(replicas)
    made = _predicted(
        config, max(1, round(tokens["prompt"] / rows)), max(1, round(tokens["output"] / rows)), max(1, round(flight))
    )
    measured = sum(one["output_tokens_per_second"] or 0.0 for one in replicas) / len(replicas)
    if "output_tokens_per_second" in made:
        made["error"] = made["output_tokens_per_second"] / measured - 1 if measured else None
    return {**made, "measured": measured}


def _predicted(config: ScoreConfig, input_tokens: int, output_tokens: int, batch: int) -> dict[str, Any]:
    """`batch` 0: as many as fit."""
    wanted = config.prediction
    name = wanted.hardware or config.replicas[0].hardware
    model = wanted.model or str(config.engine_of(config.replicas[0]).options.get("model", ""))
    missing = [path for path, value in (("model", model), ("hardware", name)) if not value]
    if missing:
        return {"message": f"the planner needs prediction.{' and prediction.'.join(missing)}"}
    try:
        shape = model_shape.load(model)
        machine, count = hardware.parse(name)
        setup = InferenceSetup(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            tensor_parallel=count or 1,
            precision=wanted.precision,
        )
        plan = inference.make(shape, setup, machine, prices.bundled())
        best = plan.best
        if best is None:
            return {"message": f"{shape.name} does not fit on {machine.title}"}
        point = _at(shape, setup, machine, min(batch, plan.max_batch)) if batch else best
    except errors.MichelangeloError as e:
        return {"message": e.message}
    scale = point.output_tokens_per_second / best.output_tokens_per_second
    return {
        "model": shape.name,
        "hardware": machine.title,
        "gpus": count or 1,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "batch": point.batch,
        "output_tokens_per_second": point.output_tokens_per_second,
        "low": plan.low * scale,
        "high": plan.high * scale,
        "knee": plan.knee,
        "points": [[one.batch, one.output_tokens_per_second] for one in plan.points],
        "usd_per_million_output_tokens": plan.money_per_million_output or None,
    }


def _at(shape: model_shape.ModelShape, setup: InferenceSetup, machine: Hardware, batch: int) -> inference.Point:
    return inference.point(shape, dataclasses.replace(setup), machine, max(1, batch))
