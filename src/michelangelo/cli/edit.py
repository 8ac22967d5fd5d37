"""`mactl edit`: an object in the user's editor, written back with the version that was read."""

from __future__ import annotations

import copy
import tempfile

import click

from michelangelo import errors
from michelangelo.cli import connection, documents, kind_names, options, output
from michelangelo.cli.invocation import Invocation
from michelangelo.client.client import Object
from michelangelo.meta import secrecy

__all__ = ["edit"]

_HEADER = """\
# {identity}: save and close to apply; leave it unchanged, or empty, to change nothing.
# Lines that start with # are ignored.
"""


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="KIND NAME | KIND/NAME")
@options.namespace
@click.option("--editor", default=None, envvar=["KUBE_EDITOR", "VISUAL", "EDITOR"], help="Editor to start.")
@click.pass_obj
def edit(invocation: Invocation, targets: tuple[str, ...], namespace: str, editor: str | None) -> None:
    """Edit an object in your editor.

    \b
    Example:
      mactl edit pipeline train -n demo
      EDITOR=nano mactl edit project/demo
    """
    wanted = kind_names.parse_targets(targets)
    if len(wanted) != 1 or not wanted[0][1]:
        raise errors.SettingsError("edit takes one object: KIND NAME, or KIND/NAME")
    kind, name = wanted[0]
    if kind.kind == secrecy.KIND:
        raise errors.SettingsError("a secret is not shown in an editor; use `mactl secret set NAME KEY`")
    with connection.connect(invocation) as link:
        old = link.client.get(kind.kind, name, namespace=link.namespace(namespace) if kind.namespaced else "")
        shown = copy.deepcopy(old)
        shown["metadata"].pop("managedFields", None)
        original = output.as_yaml(shown)
        text, complaint = original, ""
        while True:
            edited = click.edit(
                complaint + _HEADER.format(identity=output.identity(old)) + text, editor, extension=".yaml"
            )
            body = "".join(line for line in (edited or "").splitlines(keepends=True) if not line.startswith("#"))
            if not body.strip() or body == original:
                click.echo("nothing changed", err=True)
                return
            if complaint and body == text:
                raise errors.BadRequestError(f"nothing was changed, as this was left as it is:\n{complaint}")
            text = body
            try:
                link.client.update(_parse(body, old))
            except (errors.SettingsError, errors.InvalidError, errors.BadRequestError) as e:
                complaint = _complaint(e)
                continue
            except errors.ConflictError as e:
                raise errors.ConflictError(f"{e.message}; your text is in {_keep(text)}") from e
            click.echo(f"{output.identity(old)} edited")
            return


def _keep(text: str) -> str:
    """Save what somebody has typed; the file's path."""
    with tempfile.NamedTemporaryFile("w", prefix="mactl-edit-", suffix=".yaml", delete=False) as file:
        file.write(text)
    return file.name


def _parse(text: str, old: Object) -> Object:
    found = documents.parse(text.encode(), "the edited text")
    if len(found) != 1:
        raise errors.SettingsError(f"the edited text holds {len(found)} objects instead of one")
    new = found[0].object
    for path in (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")):
        before, after = old.get(path[0]), new.get(path[0])
        if len(path) > 1:
            before, after = (before or {}).get(path[1]), (after or {}).get(path[1])
        if before != after:
            raise errors.SettingsError(f"{'.'.join(path)} cannot be changed")
    return new


def _complaint(error: errors.MichelangeloError) -> str:
    lines = error.message.splitlines()
    lines += [str(field) for field in error.errors] if isinstance(error, errors.InvalidError) else []
    return "".join(f"# {line}\n" for line in lines)
