"""`mactl pipeline dev-run`: a run of a workflow file as it is now, on the server, without registering a pipeline."""

from __future__ import annotations

import click

from michelangelo import errors
from michelangelo.cli import arguments as schemas
from michelangelo.cli import connection, options, output, pipeline_apply, run_start, workflow_source
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format
from michelangelo.cli.workflow_source import WorkflowSource
from michelangelo.uniflow import parameters

__all__ = ["dev_run"]


@click.command("dev-run")
@click.argument("target", required=False, default="", metavar="[FILE[:FUNCTION]]")
@click.option(
    "-f", "--file", "document", default="", metavar="YAML", help="The workflow that a Pipeline in YAML names."
)
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
    document: str,
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
      mactl pipeline dev-run -f pipeline.yaml --env SIZE=small
      mactl pipeline dev-run flows/train.py:train -n demo -a depth=3 -a 'columns=["a", "b"]'
    """
    if bool(target) == bool(document):
        raise errors.SettingsError("name what to run: pipeline.py, or -f pipeline.yaml")
    if document:
        found, project = _of_document(document)
        namespace = namespace or project
    else:
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


def _of_document(path: str) -> tuple[WorkflowSource, str]:
    """The workflow that a Pipeline in a file names, and its project."""
    found = pipeline_apply.pipelines([path])
    source = pipeline_apply.source_of(found[0]) if len(found) == 1 else None
    if source is None:
        raise errors.SettingsError(f"{path}: must be one Pipeline with a filePath that is a file of the project")
    metadata = found[0].object.get("metadata")
    return source, str(metadata.get("namespace") or "") if isinstance(metadata, dict) else ""
