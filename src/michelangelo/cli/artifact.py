"""`mactl artifact`: what tasks produced: a list of it, a copy of it, a look into it; and the removal of what nobody
refers to any more."""

from __future__ import annotations

from typing import Final

import click

from michelangelo import errors
from michelangelo.blobs.blob_store import parse_digest
from michelangelo.cli import artifact_files, artifact_preview, artifacts, connection, options, output, table
from michelangelo.cli.artifacts import Artifact
from michelangelo.cli.connection import Connection
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format

__all__ = ["artifact", "collect", "get", "list_artifacts", "preview"]

_NEWEST_RUNS: Final = 10
_SHOWN_DIGEST: Final = 19
_target = click.argument("target", nargs=-1, required=True, metavar="RUN ARTIFACT | DIGEST")


@click.group()
def artifact() -> None:
    """What tasks produced: list it, fetch it, look into it.

    \b
    Example:
      mactl artifact list run-20260101-120000-0a1b2c3d
    """


@artifact.command("list")
@click.argument("run", default="", metavar="[RUN]")
@options.namespace
@output.output_option()
@click.pass_obj
def list_artifacts(invocation: Invocation, run: str, namespace: str, output: Format) -> None:
    """List what the tasks of a run produced, or those of the newest runs.

    \b
    Example:
      mactl artifact list run-20260101-120000-0a1b2c3d -n demo
    """
    with connection.connect(invocation) as link:
        place = link.namespace(namespace)
        runs = [run] if run else artifacts.newest_runs(link, place, limit=_NEWEST_RUNS)
        found = [one for name in runs for one in artifacts.of_run(link, place, name)]
    _print(found, output, with_run=not run)


@artifact.command("get")
@_target
@click.option("-o", "--output", "path", default="", metavar="PATH", help="Where to write it; - for standard output.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@options.namespace
@click.pass_obj
def get(invocation: Invocation, target: tuple[str, ...], path: str, force: bool, namespace: str) -> None:
    """Write an artifact to a file, or a directory and a table in several parts to a folder. A table becomes CSV if the
    name ends so.

    \b
    Example:
      mactl artifact get run-20260101-120000-0a1b2c3d train.model -o model.safetensors
      mactl artifact get run-20260101-120000-0a1b2c3d features -o features.csv
    """
    with connection.connect(invocation) as link:
        found = _find(link, target, link.namespace(namespace))
        written = artifact_files.write(link.content, found, path, force=force)
    if written != "-":
        click.echo(f"{found.name} written to {written} ({artifacts.size_text(found.size)})", err=True)


@artifact.command("preview")
@_target
@click.option("--rows", type=click.IntRange(1, 1000), default=10, show_default=True, help="Rows or lines to show.")
@click.option("--max-size", type=click.IntRange(1), default=64, show_default=True, help="MiB to fetch at most.")
@options.namespace
@click.pass_obj
def preview(invocation: Invocation, target: tuple[str, ...], rows: int, max_size: int, namespace: str) -> None:
    """Show the beginning of an artifact: rows, shapes, names, text.

    \b
    Example:
      mactl artifact preview run-20260101-120000-0a1b2c3d features
    """
    with connection.connect(invocation) as link:
        found = _find(link, target, link.namespace(namespace))
        artifact_preview.show(link.content, found, rows=rows, max_bytes=max_size << 20)


@artifact.command("collect")
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@click.option(
    "--older-than",
    type=options.DURATION,
    default="24h",
    show_default=True,
    help="Leave what was written or used later; at least 1h.",
)
@click.option(
    "-o", "--output", "form", type=click.Choice(("table", "json", "yaml")), default="table", help="Output format."
)
@click.pass_obj
def collect(invocation: Invocation, dry_run: bool, older_than: float, form: Format) -> None:
    """Free what no run, pipeline or cached output refers to any more, in all projects. Safe while runs go on.

    \b
    Example:
      mactl artifact collect --dry-run
    """
    with connection.connect(invocation) as link:
        done = link.content.collect(age_seconds=older_than, dry_run=dry_run)
    if form != "table":
        output.print_data(done, form)
        return
    verb = "would be freed" if dry_run else "freed"
    click.echo(f"{verb}: {done['blobs']} blobs, {artifacts.size_text(done['bytes'])}")
    for count, what in (("cached_outputs", "cached outputs past their time"), ("logs", "logs of deleted runs")):
        if done[count]:
            click.echo(f"{verb}: {done[count]} {what}")
    click.echo(f"kept: {done['kept_blobs']} blobs, {artifacts.size_text(done['kept_bytes'])}")


def _find(link: Connection, target: tuple[str, ...], namespace: str) -> Artifact:
    if len(target) == 2:
        return artifacts.choose(artifacts.of_run(link, namespace, target[0]), target[0], target[1])
    if len(target) == 1 and "/" in target[0]:
        # As `artifact list -o name` writes it.
        run, _, name = target[0].partition("/")
        return artifacts.choose(artifacts.of_run(link, namespace, run), run, name)
    if len(target) == 1 and target[0].startswith("sha256:"):
        digest = "sha256:" + parse_digest(target[0])
        return Artifact("", digest[:_SHOWN_DIGEST], "", "", {"$codec": "blob", "blob": digest, "type": ""})
    raise errors.SettingsError(
        "name a run and an artifact of it (`mactl artifact list RUN` shows them), or a whole digest sha256:…"
    )


def _print(found: list[Artifact], form: Format, *, with_run: bool) -> None:
    if form in ("json", "yaml"):
        output.print_data([one.to_json() for one in found], form)
    elif form == "name":
        for one in found:
            click.echo(f"{one.run}/{one.name}")
    elif not found:
        click.echo("no artifacts", err=True)
    else:
        titles = ["NAME", "TYPE", "SIZE", "DIGEST", "DETAILS"]
        rows = [
            [
                one.name,
                one.type,
                artifacts.size_text(one.size),
                (one.digest if form == "wide" else one.digest[:_SHOWN_DIGEST]) or "-",
                one.summary,
            ]
            for one in found
        ]
        if with_run:
            titles.insert(0, "RUN")
            rows = [[one.run, *row] for one, row in zip(found, rows, strict=True)]
        table.print_rows(titles, rows)
