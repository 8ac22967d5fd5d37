"""`mactl pipeline_run kill`: ends a run: asks for it in the run's spec, where its driver sees it."""

from __future__ import annotations

import sys

import click

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.cli import connection, options, progress, waiting
from michelangelo.cli.invocation import Invocation
from michelangelo.client.client import Object

__all__ = ["kill"]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--name", "named", default="", metavar="NAME", help="The run; the same as the argument.")
@options.namespace
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait/--no-wait", "wait", default=False, help="Wait until it has ended.")
@options.timeout
@click.pass_obj
def kill(
    invocation: Invocation,
    names: tuple[str, ...],
    named: str,
    namespace: str,
    yes: bool,
    wait: bool,
    timeout: float,
) -> None:
    """End a run, with all its tasks. There is no way back.

    \b
    Example:
      mactl pipeline_run kill run-20260101-120000-0a1b2c3d -n demo --yes
    """
    wanted = [*names, *([named] if named else [])]
    if not wanted:
        raise errors.SettingsError("name the run to end")
    if not yes and sys.stdin.isatty():
        click.confirm(f"End {', '.join(wanted)}?", abort=True)
    with connection.connect(invocation) as link:
        place = link.namespace(namespace)
        for name in wanted:
            run = link.client.get("PipelineRun", name, namespace=place)
            if progress.has_ended(run):
                click.echo(f"pipeline_run/{name} has already ended: {run['status']['state']}")
                continue
            link.client.patch("PipelineRun", name, {"spec": {"kill": True}}, namespace=place)
            if wait:
                kind = registry.get("PipelineRun")
                waiting.until(link, kind, name, place, _has_ended, timeout_seconds=timeout)
            click.echo(f"pipeline_run/{name} {'killed' if wait else 'is being killed'}")


def _has_ended(current: Object | None) -> bool:
    return current is None or progress.has_ended(current)
