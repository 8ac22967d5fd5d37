"""`mactl llm tune`: the plan's best configurations, tried. It reads the words and prints."""

from __future__ import annotations

import importlib
from typing import Any, Literal, TypeAlias

import click

from michelangelo.app import settings
from michelangelo.cli import options as shared
from michelangelo.cli import output, table
from michelangelo.llm import model_shape, training_setup
from michelangelo.llm.planner import calibration, launch_config

__all__ = ["tune"]

_Format: TypeAlias = Literal["table", "json", "yaml", "config"]


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--method", type=click.Choice(training_setup.METHODS), default="lora", show_default=True, help="What is trained."
)
@click.option("--sequence-length", type=click.IntRange(1), default=2048, show_default=True, help="Tokens per sequence.")
@click.option(
    "--precision",
    type=click.Choice(training_setup.PRECISIONS),
    default="bf16_mixed",
    show_default=True,
    help="Of numbers.",
)
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True, help="Where to try."
)
@click.option("--tries", type=click.IntRange(1, 50), default=6, show_default=True, help="Configurations to try.")
@click.option("--steps", type=click.IntRange(1, 100), default=3, show_default=True, help="Steps of each.")
@shared.report_format("config", help="Output format; config: what mactl llm finetune takes.")
def tune(
    model: str,
    method: training_setup.Method,
    sequence_length: int,
    precision: training_setup.Precision,
    device: Literal["auto", "cpu", "cuda"],
    tries: int,
    steps: int,
    output_format: _Format,
) -> None:
    """Try the plan's best configurations of MODEL on this machine, some steps each, and keep the fastest that fits.

    What the plan was off by is kept, and corrects later plans on this hardware.

    \b
    Example:
      mactl llm tune llama-3.1-8b --method lora --sequence-length 4096
      mactl llm tune ./model --method full --tries 3 -o config > config.yaml
    """
    model_shape.load(model)
    tuning = importlib.import_module("michelangelo.llm.bench.tuning")
    base = training_setup.TrainingSetup(method=method, sequence_length=sequence_length, precision=precision)
    done = tuning.tune(
        model,
        base,
        calibration_file=settings.load().home / "llm" / calibration.FILE_NAME,
        device=device,
        tries=tries,
        steps=steps,
        report=_say,
    )
    best = done.best
    if output_format == "config":
        output.print_data(launch_config.finetune(done.plan()), "yaml")
    elif output_format == "table":
        rows = [[*_words(tried), "fastest" if tried is best else tried.problem] for tried in done.tries]
        table.print_rows(["BATCH", "RECOMPUTED", "PLANNED TOKENS/S", "MEASURED", "PLANNED GIB", "MEASURED", ""], rows)
        click.echo(
            f"{done.num_planned:,} setups planned, {len(done.tries)} tried; later plans on {done.hardware.name} know "
            f"{done.observations} runs.",
            err=True,
        )
    else:
        data = {"model": model, "hardware": done.hardware.name, "tries": [tried.to_dict() for tried in done.tries]}
        output.print_data({**data, "best": best.to_dict(), "observations": done.observations}, output_format)


def _say(tried: Any) -> None:
    batch, recomputed, planned, measured, *_ = _words(tried)
    said = tried.problem or f"{measured} tokens/s, planned {planned}"
    click.echo(f"batch {batch}, recomputed: {recomputed}: {said}", err=True)


def _words(tried: Any) -> list[str]:
    return [
        str(tried.setup.micro_batch),
        tried.setup.checkpointing,
        f"{tried.planned_rate:,.0f}",
        f"{tried.rate:,.0f}" if tried.rate else "",
        f"{tried.planned_bytes / 2**30:.2f}",
        f"{tried.allocated_bytes / 2**30:.2f}" if tried.allocated_bytes else "",
    ]
