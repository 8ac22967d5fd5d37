"""`mactl tracebench list`: the recordings of a store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from michelangelo.cli import options as shared
from michelangelo.cli import output, table, tracebench_options

__all__ = ["list_recordings"]


@click.command("list")
@click.argument("name", default="", metavar="[NAME]")
@tracebench_options.store
@shared.report_format()
def list_recordings(name: str, store: Path, output_format: Any) -> None:
    """List the recordings of a store, or those of one name, oldest first.

    \b
    Example:
      mactl tracebench list
    """
    stores = importlib.import_module("michelangelo.llm.tracebench.store")
    found = [header for header in stores.headers(store) if not name or header.name == name]
    if output_format != "table":
        output.print_data(
            [
                {
                    "reference": header.reference,
                    "engine": header.engine,
                    "suite": header.suite_name,
                    "answers": header.num_rows,
                    "source": header.source,
                    "recorded_at": header.recorded_at,
                    "digest": header.digest,
                    "notes": list(header.notes),
                }
                for header in found
            ],
            output_format,
        )
    elif found:
        rows = [
            [h.reference, h.engine, h.suite_name, f"{h.num_rows:,}", h.source, h.recorded_at, h.digest[:12]]
            for h in found
        ]
        table.print_rows(["RECORDING", "ENGINE", "SUITE", "ANSWERS", "SOURCE", "RECORDED", "DIGEST"], rows)
    else:
        click.echo(f"There are no recordings in {store}: mactl tracebench record makes one.", err=True)
