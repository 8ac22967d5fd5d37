"""`mactl sandbox`: a platform to try things on, in the background; the current context for as long as it is there.

What a sandbox is, and how it is ended safely, is in `app.sandbox`; what the demo registers is in `cli.sandbox_demo`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from michelangelo import errors
from michelangelo.app import settings
from michelangelo.app.sandbox import Running, Sandbox
from michelangelo.cli import contexts, options, sandbox_demo
from michelangelo.cli.invocation import Invocation

__all__ = ["CONTEXT", "create", "delete", "demo", "sandbox", "start", "status", "stop", "sync"]

CONTEXT: Final = "sandbox"
_PREVIOUS: Final = "previous-context"
_NEEDLESS: Final = {
    "exclude": "the sandbox is one process; nothing can be left out of it",
    "workflow": "there is one engine, and it is built in",
    "include_experimental": "there is nothing experimental in the sandbox",
    "create_compute_cluster": "tasks run on this machine",
    "compute_cluster_name": "tasks run on this machine",
}


def _upstream_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Upstream's flags: those without a meaning here are taken, and answered with a note."""
    for option in (
        click.option("--exclude", multiple=True, metavar="PART", help=f"Ignored: {_NEEDLESS['exclude']}."),
        click.option("--workflow", default=None, metavar="ENGINE", help=f"Ignored: {_NEEDLESS['workflow']}."),
        click.option("--include-experimental", multiple=True, metavar="PART", help="Ignored."),
        click.option("--create-compute-cluster", is_flag=True, default=None, help="Ignored: tasks run here."),
        click.option("--compute-cluster-name", default=None, metavar="NAME", help="Ignored: tasks run here."),
        click.option(
            "--wait-timeout", type=options.DURATION, default="600s", show_default=True, help="Give up after this time."
        ),
    ):
        command = option(command)
    return command


@click.group()
def sandbox() -> None:
    """Make, fill, stop and remove a platform to try things on. It needs no Docker.

    \b
    Example:
      mactl sandbox create && mactl sandbox demo
      mactl sandbox delete --yes
    """


@sandbox.command()
@_upstream_options
def create(**given: Any) -> None:
    """Make the sandbox and start its server; the same again does no harm.

    \b
    Example:
      mactl sandbox create
    """
    _note(given)
    chosen = settings.load()
    made = Sandbox(chosen)
    is_new = made.create()
    running = _start(chosen.home, made, given["wait_timeout"])
    click.echo(f"sandbox {'created' if is_new else 'is there'}: {running.url}, in {made.home}")
    click.echo("try it: mactl sandbox demo", err=True)


@sandbox.command()
@click.argument("what", type=click.Choice(["pipeline", "inference"]), default="pipeline")
@click.pass_context
def demo(ctx: click.Context, what: str) -> None:
    """Register a project with pipelines in the sandbox, run one of them, and wait for its end.

    \b
    Example:
      mactl sandbox demo
      mactl sandbox demo pipeline
    """
    if what == "inference":
        raise errors.SettingsError("there is nothing to serve models with yet; `mactl sandbox demo pipeline` works")
    chosen = settings.load()
    made = Sandbox(chosen)
    if made.create():
        click.echo(f"sandbox created in {made.home}", err=True)
    _start(chosen.home, made, 600.0)
    ctx.obj = Invocation(context=CONTEXT, debug=ctx.obj.debug)
    sandbox_demo.run(ctx, made.home / "demo")


@sandbox.command()
@_upstream_options
def start(**given: Any) -> None:
    """Start the server of a sandbox that was stopped.

    \b
    Example:
      mactl sandbox start
    """
    _note(given)
    chosen = settings.load()
    running = _start(chosen.home, Sandbox(chosen), given["wait_timeout"])
    click.echo(f"sandbox runs: {running.url}")


@sandbox.command()
def stop() -> None:
    """Stop the server; runs go on when it is started again.

    \b
    Example:
      mactl sandbox stop
    """
    stopped = Sandbox(settings.load()).stop()
    click.echo("sandbox stopped" if stopped else "no sandbox runs")


@sandbox.command()
@_upstream_options
def sync(**given: Any) -> None:
    """Restart the server with the program as it is now; make the sandbox where there is none.

    \b
    Example:
      mactl sandbox sync
    """
    _note(given)
    chosen = settings.load()
    made = Sandbox(chosen)
    made.create()
    made.stop()
    running = _start(chosen.home, made, given["wait_timeout"])
    click.echo(f"sandbox runs: {running.url}")


@sandbox.command()
def status() -> None:
    """Say whether there is a sandbox, and where.

    \b
    Example:
      mactl sandbox status
    """
    made = Sandbox(settings.load())
    running = made.running() if made.exists else None
    if not made.exists:
        click.echo("no sandbox")
    elif running is None:
        click.echo(f"stopped, in {made.home}")
    else:
        click.echo(f"running: {running.url}, process {running.identity.pid}, in {made.home}")


@sandbox.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--compute-cluster-name", default=None, metavar="NAME", help="Ignored: tasks run here.")
def delete(yes: bool, **given: Any) -> None:
    """Stop the sandbox and remove all that is in it.

    \b
    Example:
      mactl sandbox delete --yes
    """
    _note(given)
    chosen = settings.load()
    made = Sandbox(chosen)
    if made.exists and not yes:
        click.confirm(f"Remove {made.home} with all runs and data in it?", abort=True)
    deleted = made.delete()
    _forget_context(chosen.home)
    click.echo("sandbox deleted" if deleted else "no sandbox")


def _start(home: Path, made: Sandbox, timeout_seconds: float) -> Running:
    running = made.start(timeout_seconds=timeout_seconds)
    _set_context(home, made, running)
    return running


def _note(given: dict[str, Any]) -> None:
    for name, why in _NEEDLESS.items():
        if given.get(name):
            click.echo(f"--{name.replace('_', '-')} is ignored: {why}", err=True)


def _set_context(home: Path, made: Sandbox, running: Running) -> None:
    """The sandbox's server is a context of its own, and the current one."""
    server = contexts.load(Path(running.kubeconfig))
    own = _without(contexts.load(contexts.path(home)))
    if own["current-context"] != CONTEXT:
        own[_PREVIOUS] = own["current-context"]
    own["clusters"].append({"name": CONTEXT, "cluster": server["clusters"][0]["cluster"]})
    own["users"].append({"name": CONTEXT, "user": {"tokenFile": str(made.home / "token")}})
    own["contexts"].append(
        {"name": CONTEXT, "context": {**server["contexts"][0]["context"], "cluster": CONTEXT, "user": CONTEXT}}
    )
    own["current-context"] = CONTEXT
    contexts.save(home, own)


def _forget_context(home: Path) -> None:
    own = contexts.load(contexts.path(home))
    if contexts.entry(own, "contexts", CONTEXT) is None:
        return
    own = _without(own)
    previous = own.pop(_PREVIOUS, "")
    if own["current-context"] == CONTEXT:
        own["current-context"] = previous
    contexts.save(home, own)


def _without(document: contexts.Config) -> contexts.Config:
    left = {section: [one for one in document[section] if one["name"] != CONTEXT] for section in contexts.SECTIONS}
    return {**document, **left}
