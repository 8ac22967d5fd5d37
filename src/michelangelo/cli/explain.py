"""`mactl explain`: the fields of a kind and what they mean, without a server."""

from __future__ import annotations

import click

from michelangelo.api.v2 import explain as texts
from michelangelo.cli import kind_names

__all__ = ["explain"]


@click.command()
@click.argument("field", metavar="KIND[.FIELD…]")
@click.option("--recursive", is_flag=True, help="All fields below, without their descriptions.")
def explain(field: str, recursive: bool) -> None:
    """Describe the fields of a kind.

    \b
    Example:
      mactl explain pipeline_run
      mactl explain pipeline.spec.manifest
    """
    word, _, path = field.partition(".")
    click.echo(texts.explain(kind_names.parse(word), path, recursive=recursive), nl=False)
