"""`mactl secret unset`: remove values of a Secret; the Secret itself is deleted with `mactl secret delete`."""

from __future__ import annotations

import click

from michelangelo import errors
from michelangelo.cli import connection, options
from michelangelo.cli.invocation import Invocation

__all__ = ["unset"]


@click.command()
@click.argument("name")
@click.argument("keys", nargs=-1, required=True, metavar="KEY…")
@options.namespace
@click.pass_obj
def unset(invocation: Invocation, name: str, keys: tuple[str, ...], namespace: str) -> None:
    """Remove values of the secret NAME.

    \b
    Example:
      mactl secret unset hub token
    """
    with connection.connect(invocation) as link:
        place = link.namespace(namespace)
        present = link.client.get("Secret", name, namespace=place).get("data") or {}
        missing = [key for key in keys if key not in present]
        if missing:
            raise errors.NotFoundError(
                f"the secret {name} has no {', '.join(missing)}; it has: {', '.join(sorted(present)) or 'nothing'}"
            )
        link.client.patch("Secret", name, {"data": dict.fromkeys(keys)}, namespace=place)
        click.echo(f"secret/{name} unset: {', '.join(keys)}")
