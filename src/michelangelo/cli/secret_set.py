"""`mactl secret set`: a value into a Secret, which is made where there is none. A value is never an argument, where
other users and the shell's history would see it, and never printed."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import click

from michelangelo import errors
from michelangelo.cli import connection, options, output
from michelangelo.cli.invocation import Invocation
from michelangelo.client.client import Object

__all__ = ["set_value"]


@click.command("set")
@click.argument("name")
@click.argument("key")
@click.option("--from-file", type=click.Path(path_type=Path), help="Take the content of this file, byte for byte.")
@click.option("--from-env", metavar="VARIABLE", help="Take the value of this environment variable.")
@options.namespace
@click.pass_obj
def set_value(
    invocation: Invocation, name: str, key: str, from_file: Path | None, from_env: str | None, namespace: str
) -> None:
    """Set the value KEY of the secret NAME: typed unseen, or from standard input, a file or a variable.

    \b
    Example:
      mactl secret set hub token
      echo "$TOKEN" | mactl secret set hub token
      mactl secret set tls key --from-file server.key
    """
    value = base64.b64encode(_value(name, key, from_file, from_env)).decode()
    with connection.connect(invocation) as link:
        place = link.namespace(namespace)
        metadata = {"name": name, "namespace": place}
        try:
            link.client.patch("Secret", name, {"data": {key: value}}, namespace=place)
            done = "set"
        except errors.NotFoundError:
            made: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {key: value}}
            link.client.create(made)
            done = "created"
        click.echo(f"{output.identity({'apiVersion': 'v1', 'kind': 'Secret', 'metadata': metadata})} {done}: {key}")


def _value(name: str, key: str, from_file: Path | None, from_env: str | None) -> bytes:
    if from_file is not None and from_env is not None:
        raise errors.SettingsError("give one of --from-file and --from-env")
    if from_file is not None:
        try:
            return from_file.read_bytes()
        except OSError as error:
            raise errors.SettingsError(f"--from-file {from_file}: {error.strerror}") from error
    if from_env is not None:
        found = os.environ.get(from_env)
        if not found:
            raise errors.SettingsError(f"--from-env {from_env}: there is no such variable, or it is empty")
        return found.encode("utf-8", "surrogateescape")
    if sys.stdin.isatty():
        typed: str = click.prompt(f"{name}/{key}", hide_input=True, err=True)
        return typed.encode()
    data = sys.stdin.buffer.read()
    # `echo` ends it with a newline that nobody means; a file is taken as it is.
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise errors.SettingsError("standard input is empty; give the value there, or --from-file, or --from-env")
    return data
