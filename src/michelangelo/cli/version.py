"""`mactl version`: of this program, and of the server where one answers."""

from __future__ import annotations

import platform

import click

from michelangelo import __version__, errors
from michelangelo.cli import connection, output
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format

__all__ = ["version"]


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Do not ask the server.")
@output.output_option()
@click.pass_obj
def version(invocation: Invocation, client_only: bool, output: Format) -> None:
    """Show the versions of this program and of the server.

    \b
    Example:
      mactl version
      mactl version -o json
    """
    found = {"client": {"version": __version__, "python": platform.python_version(), "platform": platform.platform()}}
    if not client_only:
        try:
            found["server"] = connection.server_version(invocation)
        except (errors.UnavailableError, errors.SettingsError):
            found["server"] = {}
    if output in ("json", "yaml"):
        _print(found, output)
        return
    click.echo(f"client  {__version__} (Python {platform.python_version()})")
    if not client_only:
        server = found["server"]
        text = f"{server.get('gitVersion', 'unknown')} at {server.get('address')}" if server else "no server answers"
        click.echo(f"server  {text}")


def _print(found: dict[str, dict[str, str]], form: Format) -> None:
    output.print_data(found, form)
