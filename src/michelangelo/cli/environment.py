"""`mactl environment`: the environments that this machine keeps for tasks with requirements."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from michelangelo import errors
from michelangelo.app import environments, settings
from michelangelo.cli import table
from michelangelo.meta import durations, timestamps

__all__ = ["environment", "list_", "prune"]


@click.group()
def environment() -> None:
    """Show and remove the environments that this machine keeps for tasks with requirements.

    \b
    Example:
      mactl environment list
      mactl environment prune --unused-for 30d
    """


@environment.command("list")
def list_() -> None:
    """List the environments, the last used first.

    \b
    Example:
      mactl environment list
    """
    rows = [[one.digest, _age(one.used_at), one.packages] for one in environments.kept(settings.load())]
    if rows:
        table.print_rows(["NAME", "USED", "PACKAGES"], rows)
    else:
        click.echo("No environments yet: a task with requirements makes one.", err=True)


@environment.command()
@click.option("--unused-for", default="30d", show_default=True, metavar="DURATION", help="Such as 12h; 0s: all.")
def prune(unused_for: str) -> None:
    """Remove what was not used for some time, also which versions were chosen; a later run chooses anew.

    What a run uses stays. Registered pipelines keep their versions: those are on their revisions.

    \b
    Example:
      mactl environment prune --unused-for 7d
    """
    try:
        seconds = durations.seconds(unused_for)
    except ValueError as e:
        raise errors.SettingsError(f"--unused-for {unused_for}: must be a duration such as 30d or 12h") from e
    for one in environments.prune(settings.load(), seconds):
        click.echo(f"{one.digest} removed")


def _age(seconds: float) -> str:
    return timestamps.age(timestamps.format_seconds(datetime.fromtimestamp(seconds, UTC)), timestamps.system_clock())
