"""`mactl serve`: the API server and its controllers on this machine, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import dataclasses

import click

from michelangelo.app import serve as server
from michelangelo.app import settings
from michelangelo.app.serve import Started

__all__ = ["serve"]


@click.command()
@click.option("--host", default=None, help="Address to listen on (default: 127.0.0.1, or MA_HOST).")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=None, help="Port (default: 15566, or MA_PORT); 0: a free one."
)
@click.option("--allow-remote", is_flag=True, help="Listen on an address that other machines reach.")
def serve(host: str | None, port: int | None, allow_remote: bool) -> None:
    """Start the API server and its controllers. What it keeps is in MA_HOME (default ~/.ma).

    \b
    Example:
      mactl serve
      mactl serve --port 0
      kubectl --kubeconfig "$(mactl config path)" get pipelineruns -A
    """
    chosen = settings.load()
    chosen = dataclasses.replace(chosen, host=host or chosen.host, port=chosen.port if port is None else port)
    server.serve(chosen, _say, allow_remote=allow_remote)


def _say(started: Started) -> None:
    click.echo(f"serving {started.url} from {started.home}")
    click.echo(f"kubectl --kubeconfig {started.kubeconfig} get pipelineruns -A", err=True)
