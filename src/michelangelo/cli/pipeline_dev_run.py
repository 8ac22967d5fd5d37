"""`mactl pipeline dev-run`: a run of a workflow file as it is now, on the server, without registering a pipeline."""

from __future__ import annotations

import click

from michelangelo.cli import arguments as schemas
from michelangelo.cli import connection, options, output, run_start, workflow_source
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format
from michelangelo.uniflow import parameters

__all__ = ["dev_run"]


@click.command("dev-run")
@click.argument("target", metavar="FILE[:FUNCTION]")
@options.argument_option
@click.option("--env", "environ", type=options.PAIR, multiple=True, metavar="KEY=VALUE", help="For the tasks. Repeat.")
@click.option("--resume-from", default="", metavar="RUN[:STEP,…]", help="Take what an earlier run has done.")
@options.namespace
@options.wait
@output.output_option()
@click.pass_obj
def dev_run(
    invocation: Invocation,
    /,
    target: str,
    arguments: tuple[tuple[str, str], ...],
    environ: tuple[tuple[str, str], ...],
    resume_from: str,
    namespace: str,
    output: Format,
    **flags: bool,
) -> None:
    """Start a run of a workflow file, without registering it: the source goes along.

    \b
    Example:
      mactl pipeline dev-run pipeline.py --arg n=6 --wait
      mactl pipeline dev-run flows/train.py:train -n demo -a depth=3 -a 'columns=["a", "b"]'
    """
    path, _, function = target.partition(":")
    found = workflow_source.read(path, function)
    kwargs = schemas.from_pairs(arguments, found.schema)
    parameters.from_json(found.workflow, (), kwargs)
    spec = {
        "pipelineSpec": {"manifest": found.manifest(), **({"commit": commit} if (commit := found.commit()) else {})},
        **run_start.execution_input(kwargs, environ),
        **run_start.resume(resume_from),
    }
    with connection.connect(invocation, server_only=True) as link:
        found.upload(link)
        run_start.start(link, link.namespace(namespace), spec, form=output, wait=flags["wait"])
