"""`mactl pipeline run`: a run of a registered pipeline, its arguments checked against the registered schema first."""

from __future__ import annotations

import click

from michelangelo.cli import arguments as schemas
from michelangelo.cli import connection, options, output, run_start
from michelangelo.cli.output import Format
from michelangelo.meta import labels

__all__ = ["run"]


@click.command("run")
@click.argument("name", required=False, default="")
@click.option("--name", "named", default="", metavar="NAME", help="The pipeline; the same as the argument.")
@options.argument_option
@click.option("--env", "environ", type=options.PAIR, multiple=True, metavar="KEY=VALUE", help="For the tasks. Repeat.")
@click.option("--revision", default="", metavar="NAME", help="Run this revision; else the latest.")
@click.option(
    "--resume-from", "--resume_from", default="", metavar="RUN[:STEP,…]", help="Take what an earlier run did."
)
@options.namespace
@options.wait
@output.output_option()
@click.pass_context
def run(ctx: click.Context, /, name: str, named: str, namespace: str, output: Format, **given: object) -> None:
    """Start a run of a registered pipeline.

    \b
    Example:
      mactl pipeline run train -n demo --arg depth=3 --wait
      mactl pipeline run train -n demo --resume-from run-20260101-120000-0a1b2c3d
    """
    name = name or named
    if not name:
        raise click.UsageError("name the pipeline to run")
    pairs, environ, revision = given["arguments"], given["environ"], str(given["revision"])
    assert isinstance(pairs, tuple)
    assert isinstance(environ, tuple)
    with connection.connect(ctx.obj, server_only=True) as link:
        place = link.namespace(namespace)
        pipeline = link.client.get("Pipeline", name, namespace=place)
        manifest = pipeline["spec"].get("manifest") or {}
        if revision:
            content = link.client.get("Revision", revision, namespace=place)["spec"].get("content") or {}
            manifest = content.get("manifest") or content.get("spec", {}).get("manifest") or {}
        schema = manifest.get("parameters") or {}
        kwargs = schemas.from_pairs(pairs, schema)
        schemas.check(schema, kwargs, subject=f"pipeline {name}")
        spec = {
            "pipeline": {"name": name, "namespace": place},
            **({"revision": {"name": revision, "namespace": place}} if revision else {}),
            **run_start.execution_input(kwargs, environ),
            **run_start.resume(str(given["resume_from"])),
        }
        found = {labels.PIPELINE: name}
        run_start.start(link, place, spec, form=output, wait=bool(given["wait"]), labels=found)
