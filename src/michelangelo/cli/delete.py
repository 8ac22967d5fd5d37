"""`mactl delete`: delete objects by name, by file or by label, and wait until they are gone."""

from __future__ import annotations

from typing import Literal, cast

import click

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.api.v2.registry import Kind
from michelangelo.cli import connection, documents, kind_names, options, waiting
from michelangelo.cli.connection import Connection
from michelangelo.cli.get import Query
from michelangelo.cli.invocation import Invocation
from michelangelo.client.client import Propagation

__all__ = ["Target", "delete", "delete_all"]

Target = tuple[Kind, str, str]
"""Kind, name, namespace."""


@click.command()
@click.argument("targets", nargs=-1, metavar="KIND NAME… | KIND/NAME…")
@options.files
@options.namespace
@options.selectors
@click.option("--all", "everything", is_flag=True, help="All objects of the kind in the project.")
@click.option(
    "--cascade",
    type=click.Choice(["background", "foreground", "orphan"]),
    default="background",
    show_default=True,
    help="What becomes of the objects that these own.",
)
@click.option("--wait/--no-wait", "wait", default=True, help="Wait until they are gone (default).")
@click.option("--ignore-not-found", is_flag=True, help="What is missing is no error.")
@options.timeout
@click.pass_obj
def delete(invocation: Invocation, /, targets: tuple[str, ...], **given: object) -> None:
    """Delete objects.

    \b
    Example:
      mactl delete pipeline_run run-20260101-120000-0a1b2c3d -n demo
      mactl delete -f project.yaml
      mactl delete pr -l pipeline.michelangelo/name=train
    """
    filenames, everything = cast("tuple[str, ...]", given["filenames"]), bool(given["everything"])
    loaded = documents.load(filenames) if filenames else []
    with connection.connect(invocation) as link:
        namespace = link.namespace(str(given["namespace"]))
        found = [_from_file(document, namespace) for document in loaded]
        if targets:
            selector, field_selector = str(given["label_selector"]), str(given["field_selector"])
            query = Query(namespace, label_selector=selector, field_selector=field_selector)
            found += _chosen(link, kind_names.parse_targets(targets), query, everything)
        elif not filenames:
            raise errors.SettingsError("name what to delete: KIND NAME, KIND/NAME, or -f FILE")
        propagation = cast(Propagation, str(given["cascade"]).capitalize())
        timeout = cast(float, given["timeout"]) if given["wait"] else None
        delete_all(link, found, propagation, ignore_missing=bool(given["ignore_not_found"]), timeout_seconds=timeout)


def delete_all(
    link: Connection,
    targets: list[Target],
    propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    *,
    ignore_missing: bool = False,
    timeout_seconds: float | None = None,
) -> None:
    """Delete each, then wait until all are gone (`timeout_seconds=None`: do not wait)."""
    failed: list[errors.NotFoundError] = []
    waiting_for: list[tuple[Target, str]] = []
    for kind, name, namespace in targets:
        try:
            old = link.client.delete(kind.kind, name, namespace=namespace, propagation=propagation)
        except errors.NotFoundError as e:
            if not ignore_missing:
                failed.append(e)
            continue
        uid = str((old.get("metadata") or old.get("details") or {}).get("uid", ""))
        waiting_for.append(((kind, name, namespace), uid))
        click.echo(f"{kind_names.snake_case(kind)}/{name} deleted")
    if timeout_seconds is not None:
        for (kind, name, namespace), uid in waiting_for:
            waiting.until_gone(link, kind, name, namespace, uid=uid, timeout_seconds=timeout_seconds)
    if failed:
        raise errors.NotFoundError("\n       ".join(e.message for e in failed), details=failed[0].details)


def _from_file(document: documents.Document, namespace: str) -> Target:
    metadata = document.object["metadata"]
    try:
        kind = registry.get(document.object["kind"])
    except errors.NotFoundError as e:
        raise errors.SettingsError(f"{document.place('kind')}: {e.message}") from e
    if not metadata.get("name"):
        raise errors.SettingsError(f"{document.place('metadata')}: it has no name to delete it by")
    own = metadata.get("namespace") or (metadata["name"] if kind.kind == "Project" else namespace)
    return kind, metadata["name"], own if kind.namespaced else ""


def _chosen(link: Connection, wanted: list[tuple[Kind, str]], query: Query, everything: bool) -> list[Target]:
    found: list[Target] = []
    for kind, name in wanted:
        namespace = query.namespace if kind.namespaced else ""
        if name:
            found.append((kind, name, namespace))
        elif everything or query.label_selector or query.field_selector:
            found += [(kind, obj["metadata"]["name"], namespace) for obj in query.list(link, kind)]
        else:
            raise errors.SettingsError(f"which {kind.plural}? Name them, or choose by -l, or give --all")
    return found
