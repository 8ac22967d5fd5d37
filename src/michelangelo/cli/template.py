"""`mactl template`: a commented file to start from, made from the kind's schema."""

from __future__ import annotations

import click

from michelangelo.api.v2 import template as texts
from michelangelo.cli import kind_names

__all__ = ["template"]


@click.command()
@click.argument("kind")
@click.option("--name", default="", help="Name of the object.")
@click.option("-n", "--namespace", default="", help="Project of the object.")
def template(kind: str, name: str, namespace: str) -> None:
    """Print a file to start from.

    \b
    Example:
      mactl template pipeline --name train -n demo > pipeline.yaml
    """
    click.echo(texts.template(kind_names.parse(kind), name=name, namespace=namespace), nl=False)
