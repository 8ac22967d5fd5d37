"""`mactl config`: the contexts: which server, which project, which credentials.

It changes only the file of its own (`cli.contexts`), and never prints a credential.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from michelangelo import errors
from michelangelo.app import settings
from michelangelo.cli import contexts, output, table
from michelangelo.cli.contexts import Config
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format

__all__ = ["config", "delete_context", "path", "set_context", "use_context", "view"]

_SECRET: Final = frozenset(
    {"token", "password", "client-key-data", "client-certificate-data", "certificate-authority-data"}
)


@click.group()
def config() -> None:
    """Show and change the contexts: which server, which project, which credentials.

    \b
    Example:
      mactl config view
      mactl config set-context team --server https://ma.example.com:15566 --token-file token --namespace demo
      mactl config use-context team
    """


@config.command()
@output.output_option()
@click.pass_obj
def view(invocation: Invocation, output: Format) -> None:
    """List the contexts; credentials are not shown.

    \b
    Example:
      mactl config view -o yaml
    """
    document = contexts.merged(settings.load().home)
    current = invocation.context or document["current-context"]
    if output in ("json", "yaml"):
        _print(_redacted(document), output)
    elif not document["contexts"]:
        click.echo("No contexts yet: `mactl serve` makes one, `mactl config set-context` too.", err=True)
    elif output == "name":
        click.echo("\n".join(one["name"] for one in document["contexts"]))
    else:
        rows = [_row(document, one, current) for one in document["contexts"]]
        table.print_rows(["CURRENT", "NAME", "SERVER", "NAMESPACE", "USER"], rows)


@config.command()
def path() -> None:
    """Print the path of the file that kubectl reads, of the server of this machine.

    \b
    Example:
      kubectl --kubeconfig "$(mactl config path)" get pipelineruns -A
    """
    click.echo(settings.load().kubeconfig)


@config.command("use-context")
@click.argument("name")
def use_context(name: str) -> None:
    """Make a context the current one.

    \b
    Example:
      mactl config use-context team
    """
    home = settings.load().home
    known = contexts.merged(home)
    if contexts.entry(known, "contexts", name) is None:
        raise _unknown(known, name)
    document = contexts.load(contexts.path(home))
    document["current-context"] = name
    contexts.save(home, document)
    click.echo(f"{name} is the current context")


@config.command("set-context")
@click.argument("name")
@click.option("--server", default="", metavar="URL", help="Address of the server.")
@click.option(
    "--certificate-authority", type=click.Path(exists=True, dir_okay=False), help="PEM file of the server's CA."
)
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False), help="File that holds the token.")
@click.option("--namespace", "-n", default="", help="Project that verbs act on when none is named.")
def set_context(
    name: str, server: str, certificate_authority: str | None, token_file: str | None, namespace: str
) -> None:
    """Add a context, or change one: what is not given stays.

    \b
    Example:
      mactl config set-context michelangelo --namespace demo
      mactl config set-context team --server https://ma.example.com:15566 --token-file token
    """
    home = settings.load().home
    if server and not server.startswith(("https://", "http://")):
        raise errors.SettingsError(f"--server {server!r}: an address starts with https:// or http://")
    document, known = contexts.load(contexts.path(home)), contexts.merged(home)
    before = contexts.entry(known, "contexts", name)
    if before is None and not server:
        raise errors.SettingsError(f"there is no context {name!r}; to add it, give its --server")
    context = _ensure(document, "contexts", name, before)["context"]
    context.setdefault("cluster", name)
    if namespace:
        context["namespace"] = namespace
    if server or certificate_authority:
        old = contexts.entry(known, "clusters", context["cluster"])
        cluster = _ensure(document, "clusters", context["cluster"], old)["cluster"]
        cluster |= {"server": server} if server else {}
        cluster |= (
            {"certificate-authority": str(Path(certificate_authority).resolve())} if certificate_authority else {}
        )
    if token_file:
        user = context.setdefault("user", name)
        _ensure(document, "users", user, None)["user"] = {"tokenFile": str(Path(token_file).resolve())}
    document["current-context"] = document["current-context"] or name
    contexts.save(home, document)
    click.echo(f"context {name} {'added' if before is None else 'changed'}")


@config.command("delete-context")
@click.argument("name")
def delete_context(name: str) -> None:
    """Forget a context, with its server and credentials.

    \b
    Example:
      mactl config delete-context team
    """
    home = settings.load().home
    document = contexts.load(contexts.path(home))
    gone = contexts.entry(document, "contexts", name)
    if gone is None:
        raise _unknown(document, name)
    document["contexts"].remove(gone)
    for section, key in (("clusters", "cluster"), ("users", "user")):
        used = {one["context"].get(key) for one in document["contexts"]}
        left = gone["context"].get(key)
        document[section] = [one for one in document[section] if one["name"] != left or left in used]
    if document["current-context"] == name:
        document["current-context"] = ""
    contexts.save(home, document)
    click.echo(f"context {name} deleted")


def _row(document: Config, one: Config, current: str) -> list[str]:
    context = one["context"]
    cluster = contexts.entry(document, "clusters", str(context.get("cluster", ""))) or {"cluster": {}}
    mark = "*" if one["name"] == current else ""
    server = str(cluster["cluster"].get("server", ""))
    return [mark, one["name"], server, str(context.get("namespace", "")), str(context.get("user", ""))]


def _ensure(document: Config, section: str, name: str, before: Config | None) -> Config:
    """The entry of our own file, made from the one known before where there is none yet."""
    found = contexts.entry(document, section, name)
    if found is None:
        found = {"name": name, section[:-1]: dict(before[section[:-1]]) if before else {}}
        document[section].append(found)
    return found


def _unknown(document: Config, name: str) -> errors.SettingsError:
    known = ", ".join(one["name"] for one in document["contexts"]) or "none"
    return errors.SettingsError(f"there is no context {name!r} that could be taken; there are: {known}")


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "REDACTED" if key in _SECRET else _redacted(inner) for key, inner in value.items()}
    return [_redacted(inner) for inner in value] if isinstance(value, list) else value


def _print(document: Config, form: Format) -> None:
    output.print_data(document, form)
