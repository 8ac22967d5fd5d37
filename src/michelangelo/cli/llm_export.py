"""`mactl llm export`: a run's checkpoint as a model for others. It reads the words and prints."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Literal, TypeAlias

import click

from michelangelo.cli import options as shared
from michelangelo.cli import output

__all__ = ["export"]

_Format: TypeAlias = Literal["table", "json", "yaml", "name"]


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--to", required=True, metavar="FOLDER", help="The folder to write.")
@click.option(
    "--merged", "kind", flag_value="merged", default=True, help="Adapters added to the weights (the default)."
)
@click.option("--adapter-only", "kind", flag_value="adapter", help="The adapter alone, as PEFT loads it.")
@click.option(
    "--checkpoint", "step", type=int, default=None, metavar="STEP", help="Of this step; the newest if left out."
)
@click.option("--force", is_flag=True, help="Replace the folder if it is there.")
@shared.report_format("name")
def export(
    run: str, to: str, kind: Literal["merged", "adapter"], step: int | None, force: bool, output_format: _Format
) -> None:
    """Write a checkpoint of the run in the folder RUN as a model, with its tokenizer and a model card.

    A run that trained all weights is written in full. The folder appears whole or not at all.

    \b
    Example:
      mactl llm export run --to model
      mactl llm export run --to adapter --adapter-only --checkpoint 400
    """
    writing = importlib.import_module("michelangelo.llm.finetune.export.writing")
    exported = writing.write(Path(run), Path(to), kind=kind, step=step, overwrite=force)
    for problem in exported.skipped:
        click.echo(f"{problem}; an earlier one was taken", err=True)
    if output_format == "name":
        click.echo(exported.path)
    elif output_format == "table":
        click.echo(f"{exported.path}: {exported.kind}, step {exported.step:,}, {exported.num_bytes / 2**20:,.1f} MiB")
    else:
        output.print_data(dataclasses.asdict(exported), output_format)
