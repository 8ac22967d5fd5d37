"""`mactl cache`: why a step was computed or not, what is cached, and the removal of what should be computed again."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from michelangelo import errors
from michelangelo.cli import artifacts, cache_entries, cache_explain, connection, options, output, table
from michelangelo.cli.cache_entries import Choice
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format
from michelangelo.meta import timestamps

__all__ = ["cache", "explain", "invalidate", "list_entries"]


@click.group()
def cache() -> None:
    """Why a step was computed or not, what is cached, what should be computed again.

    \b
    Example:
      mactl cache explain run-20260101-120000-0a1b2c3d train
    """


@cache.command("explain")
@click.argument("run")
@click.argument("step")
@click.option("--nth", type=click.IntRange(1), default=None, help="Which one, where the task was called several times.")
@options.namespace
@output.output_option()
@click.pass_obj
def explain(invocation: Invocation, run: str, step: str, nth: int | None, namespace: str, output: Format) -> None:
    """Say why a step was taken from the cache, or what differed. STEP is a task, a step, or how one begins.

    \b
    Example:
      mactl cache explain run-20260101-120000-0a1b2c3d train -n demo
      mactl cache explain run-20260101-120000-0a1b2c3d train --nth 2 -o json
    """
    with connection.connect(invocation) as link:
        place = link.namespace(namespace)
        chosen = cache_explain.choose(cache_explain.steps(link, place, run), run, step, nth)
        story = cache_explain.tell(link, place, run, chosen)
    if output in ("json", "yaml"):
        cache_explain.print_data(story, output)
    else:
        cache_explain.show(story, sys.stdout)


@cache.command("list")
@options.namespace
@click.option("--task", default="", metavar="NAME", help="Only outputs of this task.")
@click.option("--run", default="", metavar="RUN", help="Only those that this run made.")
@output.output_option()
@click.pass_obj
def list_entries(invocation: Invocation, namespace: str, task: str, run: str, output: Format) -> None:
    """List the cached outputs, the newest first.

    \b
    Example:
      mactl cache list -n demo --task train
    """
    with connection.connect(invocation) as link:
        found = cache_entries.chosen(link, link.namespace(namespace), Choice(task=task, run=run))
    _print(found, output)


@cache.command("invalidate")
@click.argument("names", nargs=-1)
@click.option("--task", default="", metavar="NAME", help="Outputs of this task.")
@click.option("--run", default="", metavar="RUN", help="Outputs that this run made.")
@click.option("--older-than", type=options.DURATION, default=None, metavar="TIME", help="Made longer ago: 12h, 30m.")
@click.option("--all", "everything", is_flag=True, help="All of the project.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options.namespace
@click.pass_obj
def invalidate(invocation: Invocation, /, names: tuple[str, ...], **given: Any) -> None:
    """Delete cached outputs, so that the same steps are computed again. What several options choose, all have to.

    \b
    Example:
      mactl cache invalidate --task train --older-than 24h -n demo
      mactl cache invalidate --run run-20260101-120000-0a1b2c3d --dry-run
    """
    choice = Choice(names, given["task"], given["run"], given["older_than"])
    if choice == Choice() and not given["everything"]:
        raise errors.SettingsError("which? Name cached outputs, choose by --task, --run, --older-than, or give --all")
    with connection.connect(invocation) as link:
        place = link.namespace(given["namespace"])
        found = cache_entries.chosen(link, place, choice)
        if given["dry_run"]:
            _print(found, "table")
            return
        if len(found) > 1 and not given["yes"] and sys.stdin.isatty():
            click.confirm(f"Delete {len(found)} cached outputs of project {place}?", abort=True)
        for one in found:
            cache_entries.delete(link, one)
    click.echo(f"{table.counted(len(found), 'cached output')} deleted")


def _print(found: list[dict[str, Any]], form: Format) -> None:
    if form in ("json", "yaml", "name"):
        output.print_objects(found, form)
        return
    if not found:
        click.echo("Nothing is cached.", err=True)
        return
    now = timestamps.system_clock()
    rows = [_row(one, now, wide=form == "wide") for one in found]
    titles = ["TASK", "RUN", "STEP", "AGE", "TTL LEFT", "SIZE", *(["VERSION"] if form == "wide" else []), "NAME"]
    table.print_rows(titles, rows)


def _row(one: dict[str, Any], now: datetime, *, wide: bool) -> list[str]:
    spec, metadata = one["spec"], one["metadata"]
    key = spec.get("key") or {}
    left = cache_entries.seconds_left(one, now)
    return [
        str(key.get("task") or ""),
        str((spec.get("sourcePipelineRun") or {}).get("name") or ""),
        str(spec.get("sourcePipelineRunStep") or ""),
        timestamps.age(metadata["creationTimestamp"], now),
        "" if left is None else cache_entries.duration(left),
        artifacts.size_text(cache_entries.size(spec.get("output"))),
        *([str(key.get("version") or "")] if wide else []),
        metadata["name"],
    ]
