"""`mactl llm models`: the shapes that are bundled, by name."""

from __future__ import annotations

from typing import Literal, TypeAlias

import click

from michelangelo.cli import options as shared
from michelangelo.cli import output, table
from michelangelo.llm import model_shape

__all__ = ["models"]

_Format: TypeAlias = Literal["table", "json", "yaml", "name"]


@click.command()
@click.argument("word", default="", metavar="[WORD]")
@shared.report_format("name")
def models(word: str, output_format: _Format) -> None:
    """List the models whose shapes are known, those with WORD in their name.

    \b
    Example:
      mactl llm models llama
    """
    names = [name for name in model_shape.catalogue() if word.lower() in name]
    if output_format == "name":
        for name in names:
            click.echo(name)
        return
    shapes = [model_shape.load(name) for name in names]
    if output_format == "table":
        rows = [
            [
                s.name,
                f"{s.num_parameters / 1e9:,.2f}B",
                f"{s.active_parameters / 1e9:,.2f}B",
                str(s.num_layers),
                s.architecture,
            ]
            for s in shapes
        ]
        if rows:
            table.print_rows(["NAME", "PARAMETERS", "ACTIVE", "LAYERS", "ARCHITECTURE"], rows)
        else:
            click.echo(f"No name has {word} in it; mactl llm models lists all.", err=True)
        return
    items = [
        {
            "name": s.name,
            "architecture": s.architecture,
            "parameters": s.num_parameters,
            "activeParameters": s.active_parameters,
            "layers": s.num_layers,
            "source": model_shape.provenance(s.name)[0],
        }
        for s in shapes
    ]
    output.print_data(items, output_format)
