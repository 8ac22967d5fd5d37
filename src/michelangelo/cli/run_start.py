"""Starting a run: the PipelineRun object, and what is shown of it afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import click

from michelangelo import errors
from michelangelo.app.settings import DEFAULT_PROJECT
from michelangelo.cli import output, progress, workflow_source
from michelangelo.cli.connection import Connection
from michelangelo.cli.output import Format
from michelangelo.client.client import Object
from michelangelo.meta import timestamps

__all__ = ["execution_input", "resume", "start"]


def start(link: Connection, namespace: str, spec: dict[str, Any], *, form: Format, wait: bool, **metadata: Any) -> None:
    """Create the run, say its name, and with `wait` show its progress until its end (whose failure is an error)."""
    name = f"run-{timestamps.system_clock():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    obj: Object = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "PipelineRun",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {**spec, **({"actor": who} if (who := workflow_source.actor()) else {})},
    }
    created = _create(link, obj)
    if not wait:
        if form == "table":
            click.echo(f"{output.identity(created)} created")
            click.echo(f"follow it: mactl logs -f {name} -n {namespace}", err=True)
        else:
            output.print_object(created, form)
        return
    click.echo(f"{output.identity(created)} created", err=form != "table")
    ended = progress.follow(link, name, namespace)
    if form == "table":
        progress.check_success(ended)
    else:
        output.print_object(ended, form)
        progress.check_success(ended, with_result=False)


def execution_input(kwargs: dict[str, Any], environ: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """`spec.input` of a run; empty when there is nothing to say."""
    given: dict[str, Any] = {}
    if kwargs:
        given["kwArgs"] = kwargs
    if environ:
        given["environ"] = dict(environ)
    return {"input": given} if given else {}


def resume(text: str) -> dict[str, Any]:
    """`spec.resume` of `RUN` or `RUN:STEP,…`."""
    if not text:
        return {}
    run, _, steps = text.partition(":")
    wanted = [step for step in steps.split(",") if step]
    return {"resume": {"pipelineRun": {"name": run}, **({"resumeFrom": wanted} if wanted else {})}}


def _create(link: Connection, obj: Object) -> Object:
    """The created run. The project of people who chose none is made when it is first needed."""
    namespace = obj["metadata"]["namespace"]
    try:
        return link.client.create(obj)
    except errors.NotFoundError as e:
        if namespace != DEFAULT_PROJECT:
            raise errors.NotFoundError(
                f"{e.message}; make the project first: mactl template project --name {namespace} | mactl apply -f -"
            ) from e
    project: Object = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Project",
        "metadata": {"name": namespace, "namespace": namespace},
        "spec": {"description": "Runs that belong to no project"},
    }
    try:
        link.client.create(project)
    except errors.AlreadyExistsError:
        pass
    return link.client.create(obj)
