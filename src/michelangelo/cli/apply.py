"""`mactl apply`: create or update objects from files, folders and standard input.

Everything is read and checked against the kinds before the first write, and all that is wrong is said at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.api.v2.registry import Kind
from michelangelo.cli import connection, documents, merge, options, output
from michelangelo.cli.connection import Connection
from michelangelo.cli.documents import Document
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format
from michelangelo.client.client import Object
from michelangelo.meta.metadata import ANNOTATIONS_BYTES

__all__ = ["apply", "apply_files"]

_FIRST = ("Namespace", "Project")
"""Kinds that others live in."""


@click.command()
@options.files
@click.option("-R", "--recursive", is_flag=True, help="Look into folders of folders.")
@options.namespace
@output.output_option()
@click.option("--dry-run", is_flag=True, help="Let the server check and say what would happen; change nothing.")
@click.pass_obj
def apply(
    invocation: Invocation,
    filenames: tuple[str, ...],
    recursive: bool,
    namespace: str,
    output: Format,
    dry_run: bool,
) -> None:
    """Create or update objects.

    \b
    Example:
      mactl apply -f project.yaml
      mactl apply -f manifests/ -R
      cat pipeline.yaml | mactl apply -f -
    """
    loaded = documents.load(_named(filenames), recursive=recursive)
    with connection.connect(invocation) as link:
        apply_files(link, loaded, namespace=namespace, form=output, dry_run=dry_run)


def apply_files(
    link: Connection, loaded: Sequence[Document], *, namespace: str = "", form: Format = "table", dry_run: bool = False
) -> None:
    """Check all documents, then write them, namespaces and projects first. Raises one error for all that failed."""
    wanted = [_placed(document, link, namespace) for document in loaded]
    _check(loaded, wanted)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i]["kind"] not in _FIRST)
    failed: list[str] = []
    results: list[Object] = []
    for i in order:
        try:
            obj, done = _write(link, wanted[i], dry_run)
        except errors.ApiError as e:
            failed.append(_message(loaded[i], e))
            continue
        results.append(obj)
        if form == "table":
            click.echo(f"{output.identity(obj)} {done}{' (dry run)' if dry_run else ''}")
    if form != "table" and results:
        if len(loaded) == 1:
            output.print_object(results[0], form)
        else:
            output.print_objects(results, form)
    if failed:
        raise errors.BadRequestError("\n       ".join(failed))


def _named(filenames: tuple[str, ...]) -> tuple[str, ...]:
    if not filenames:
        raise errors.SettingsError("name what to apply: -f FILE, -f FOLDER, or -f - for standard input")
    return filenames


def _placed(document: Document, link: Connection, namespace: str) -> Object:
    """The object with the namespace that it goes to. A file's own namespace must be the one asked for."""
    obj = document.object
    try:
        kind = _kind(obj)
    except errors.NotFoundError as e:
        raise errors.SettingsError(f"{document.place('kind')}: {e.message}") from e
    metadata = obj["metadata"]
    if not kind.namespaced:
        return obj
    own = metadata.get("namespace") or ""
    if kind.kind == "Project":
        own = own or metadata.get("name") or ""
    elif own and namespace and own != namespace:
        place = document.place("metadata.namespace")
        raise errors.SettingsError(f"{place}: its namespace is {own!r}, but -n asks for {namespace!r}")
    return {**obj, "metadata": {**metadata, "namespace": own or link.namespace(namespace)}}


def _kind(obj: Object) -> Kind:
    kind = registry.get(obj["kind"])
    if obj["apiVersion"] != kind.api_version:
        raise errors.NotFoundError(f"{obj['apiVersion']!r} has no {kind.kind}; write apiVersion: {kind.api_version}")
    return kind


def _check(loaded: Sequence[Document], wanted: Sequence[Object]) -> None:
    """Every field error of every document, with its place in the file, before anything is written."""
    found: list[errors.FieldError] = []
    for document, obj in zip(loaded, wanted, strict=True):
        checked = registry.get(obj["kind"]).model.check(obj)
        found += [errors.FieldError(f"{document.place(e.path)}: {e.path}", e.message) for e in checked.errors]
        found += [errors.FieldError(document.place(path), f"unknown field {path!r}") for path in checked.unknown]
        found += _check_size(document, obj)
    if found:
        raise errors.InvalidError("nothing was applied, because this is wrong:", errors=found)


def _check_size(document: Document, obj: Object) -> list[errors.FieldError]:
    size = len(merge.with_last_applied(obj)["metadata"]["annotations"][merge.LAST_APPLIED].encode())
    if size <= ANNOTATIONS_BYTES or not obj["metadata"].get("name"):
        return []
    message = (
        f"it is {size} bytes as JSON, and `apply` takes at most {ANNOTATIONS_BYTES}, because it keeps what was applied "
        "in an annotation: put large data into a file or a blob that the object names"
    )
    return [errors.FieldError(document.place(), message)]


def _write(link: Connection, wanted: Object, dry_run: bool) -> tuple[Object, str]:
    kind, metadata = wanted["kind"], wanted["metadata"]
    if not metadata.get("name"):
        return link.client.create(wanted, dry_run=dry_run), "created"
    name, namespace = metadata["name"], metadata.get("namespace", "")
    try:
        live = link.client.get(kind, name, namespace=namespace)
    except errors.NotFoundError:
        return link.client.create(merge.with_last_applied(wanted), dry_run=dry_run), "created"
    # In the form that the server keeps, so that upstream's spellings and left-out defaults are no difference.
    canonical = registry.get(kind).model.check(wanted).object
    patch = merge.three_way(live, _without_defaults(canonical, wanted))
    if not patch:
        return live, "unchanged"
    return link.client.patch(kind, name, patch, namespace=namespace, dry_run=dry_run), "configured"


def _without_defaults(canonical: Object, wanted: Object) -> Object:
    """The canonical form without what only the server decides."""
    kept = {key: value for key, value in canonical.items() if key != "status"}
    kept["metadata"] = {key: value for key, value in canonical["metadata"].items() if key in wanted["metadata"]}
    return kept


def _message(document: Document, error: errors.ApiError) -> str:
    if isinstance(error, errors.InvalidError) and error.errors:
        return "\n       ".join(f"{document.place(e.path)}: {e}" for e in error.errors)
    if isinstance(error, errors.NotFoundError) and error.details.get("kind") == "namespaces":
        place, name = document.place("metadata.namespace"), error.details.get("name")
        advice = f"mactl template project --name {name} | mactl apply -f -"
        return f"{place}: there is no project {name}; make it first: {advice}"
    return f"{document.place()}: {error.message}"
