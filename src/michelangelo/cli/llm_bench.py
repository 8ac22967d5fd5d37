"""`mactl llm bench`: one experiment, predicted first and measured afterwards. It reads the words and prints."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal, TypeAlias

import click

from michelangelo.cli import options as shared
from michelangelo.cli import output, table

__all__ = ["bench"]

_Format: TypeAlias = Literal["table", "json", "yaml"]


@click.command()
@click.argument("name", default="", metavar="[EXPERIMENT]")
@click.option("--model", default="", metavar="MODEL", help="A name of the catalogue, or a folder with config.json.")
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True, help="Where to measure."
)
@click.option("--memory-cap", default="", metavar="SIZE", help="Take no more of the device's memory: 80GB.")
@click.option("--quick", is_flag=True, help="Fewer sizes and steps: under a minute on a CPU, to see that it works.")
@click.option("--minutes", type=float, default=0.0, metavar="N", help="What takes longer is left out, and said.")
@click.option(
    "--folder", default="", metavar="FOLDER", help="For predictions, report and plot; bench/EXPERIMENT if left out."
)
@shared.report_format()
def bench(
    name: str,
    model: str,
    device: Literal["auto", "cpu", "cuda"],
    memory_cap: str,
    quick: bool,
    minutes: float,
    folder: str,
    output_format: _Format,
) -> None:
    """Run an experiment: the prediction is written down before anything is measured. Without a name: list them.

    \b
    Example:
      mactl llm bench
      mactl llm bench attention --quick
      mactl llm bench offload --model llama-3.2-3b --memory-cap 80GB
    """
    experiments = importlib.import_module("michelangelo.llm.bench.experiments")
    if not name:
        entries = [{"name": key, "question": entry.question} for key, entry in experiments.ALL.items()]
        if output_format == "table":
            table.print_rows(["NAME", "QUESTION"], [[entry["name"], entry["question"]] for entry in entries])
        else:
            output.print_data(entries, output_format)
        return
    experiments.load(name)
    tasks = importlib.import_module("michelangelo.llm.bench.tasks")
    place = Path(folder) if folder else Path("bench") / name
    task = tasks.make(
        name, folder=place, model=model, device=device, memory_cap=memory_cap, quick=quick, minutes=minutes
    )
    report = importlib.import_module("michelangelo.llm.bench.performing").perform(name, task)
    if output_format != "table":
        output.print_data(dict(report), output_format)
        return
    reporting = importlib.import_module("michelangelo.llm.bench.reporting")
    table.print_rows(list(reporting.TITLES), reporting.rows(report))
    click.echo()
    for sentence in [*report["conclusions"], *(f"Left out for want of time: {what}." for what in report["left_out"])]:
        click.echo(sentence)
    click.echo(f"report, plot and predictions: {place}", err=True)
