"""`mactl pipeline_run signal`: a message to a run that waits for it, such as a person's approval."""

from __future__ import annotations

import json
from typing import Any

import click

from michelangelo.cli import connection, options, output, workflow_source
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format
from michelangelo.client.client import Object
from michelangelo.meta import labels

__all__ = ["signal"]


@click.command()
@click.argument("run")
@click.argument("name")
@click.option("--payload", default="null", metavar="JSON", help="What the wait returns: JSON, or else text.")
@options.namespace
@output.output_option()
@click.pass_obj
def signal(invocation: Invocation, run: str, name: str, payload: str, namespace: str, output: Format) -> None:
    """Send a signal that a run waits for (`uniflow.wait_for_signal`).

    \b
    Example:
      mactl pipeline_run signal run-20260101-120000-0a1b2c3d approval --payload '{"approved": true}'
    """
    with connection.connect(invocation) as link:
        place = link.namespace(namespace)
        # Only to say at once that there is no such run; one that has ended takes no signal either.
        link.client.get("PipelineRun", run, namespace=place)
        spec: dict[str, Any] = {"pipelineRun": run, "name": name, "payload": _value(payload)}
        if who := workflow_source.actor():
            spec["actor"] = who
        obj: Object = {
            "apiVersion": "michelangelo.api/v2",
            "kind": "Signal",
            "metadata": {
                "generateName": f"{run}-",
                "namespace": place,
                "labels": {labels.PIPELINE_RUN: run, labels.SIGNAL: name},
            },
            "spec": spec,
        }
        created = link.client.create(obj)
        _print(created, output)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _print(created: Object, form: Format) -> None:
    if form == "table":
        click.echo(f"{output.identity(created)} created")
    else:
        output.print_object(created, form)
