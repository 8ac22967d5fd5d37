"""`mactl get`: objects as a table, JSON, YAML or names, once or as they change."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from michelangelo import errors
from michelangelo.api.v2.registry import Kind
from michelangelo.cli import connection, kind_names, options, output, table
from michelangelo.cli.connection import Connection
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format
from michelangelo.client.client import Object, Watch
from michelangelo.meta import secrecy

__all__ = ["Query", "get", "show"]

_PAGE = 500


class Query:
    """Which objects of a kind: a namespace and selectors."""

    def __init__(self, namespace: str, *, label_selector: str = "", field_selector: str = "") -> None:
        self.namespace = namespace
        self.label_selector = label_selector
        self.field_selector = field_selector

    def list(self, link: Connection, kind: Kind, *, limit: int = 0) -> Iterator[Object]:
        """All objects, page by page; at most `limit` of them (0: no bound)."""
        token, left = "", limit
        while True:
            page = link.client.list(
                kind.kind,
                namespace=self.namespace if kind.namespaced else "",
                label_selector=self.label_selector,
                field_selector=self.field_selector,
                limit=min(_PAGE, left) if limit else _PAGE,
                continue_token=token,
            )
            yield from page.items
            token, left = page.continue_token, left - len(page.items)
            if not token or (limit and left <= 0):
                return

    def watch(self, link: Connection, kind: Kind) -> Watch:
        return link.client.watch(
            kind.kind,
            namespace=self.namespace if kind.namespaced else "",
            label_selector=self.label_selector,
            field_selector=self.field_selector,
        )


@click.command()
@click.argument("targets", nargs=-1, metavar="KIND [NAME…] | KIND/NAME…")
@options.namespace
@options.all_namespaces
@options.selectors
@output.output_option()
@click.option("-w", "--watch", "watch", is_flag=True, help="Go on showing what changes.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="At most so many; 0: all.")
@click.pass_obj
def get(
    invocation: Invocation,
    /,
    targets: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    output: Format,
    watch: bool,
    limit: int,
    **selectors: str,
) -> None:
    """Show objects.

    \b
    Example:
      mactl get pipeline_run -n demo
      mactl get pr,pipelines -A -o wide
      mactl get pipeline_run/run-20260101-120000-0a1b2c3d -o yaml
      mactl get pr -l pipeline.michelangelo/name=train -w
    """
    wanted = kind_names.parse_targets(targets)
    with connection.connect(invocation) as link:
        query = Query(link.namespace(namespace, everywhere=all_namespaces), **selectors)
        show(link, wanted, query, output=output, watch=watch, limit=limit)


def show(
    link: Connection,
    wanted: list[tuple[Kind, str]],
    query: Query,
    *,
    output: Format,
    watch: bool = False,
    limit: int = 0,
) -> None:
    """Print the wanted objects; an empty name means all of a kind. All that are missing are named in one error."""
    if watch:
        if len({kind.kind for kind, _ in wanted}) != 1:
            raise errors.SettingsError("--watch shows one kind at a time")
        _follow(link, wanted[0][0], {name for _, name in wanted if name}, query, output)
        return
    found: list[Object] = []
    missing: list[errors.NotFoundError] = []
    for kind, name in wanted:
        if not name:
            found += query.list(link, kind, limit=limit)
            continue
        try:
            obj = link.client.get(kind.kind, name, namespace=query.namespace if kind.namespaced else "")
            found.append(secrecy.shown(obj))
        except errors.NotFoundError as e:
            missing.append(e)
    _print(found, wanted, query, output, len(missing))
    if missing:
        raise errors.NotFoundError("\n       ".join(e.message for e in missing), details=missing[0].details)


def _print(found: list[Object], wanted: list[tuple[Kind, str]], query: Query, form: Format, num_missing: int) -> None:
    if len(wanted) == 1 and wanted[0][1] and found:
        output.print_object(found[0], form)
    elif found or form in ("json", "yaml"):
        output.print_objects(found, form, with_namespace=not query.namespace)
    elif not num_missing:
        kinds = " or ".join(dict.fromkeys(kind.plural for kind, _ in wanted))
        where = f" in project {query.namespace}; -A looks in all" if query.namespace else ""
        click.echo(f"No {kinds} found{where}.", err=True)


def _follow(link: Connection, kind: Kind, names: set[str], query: Query, form: Format) -> None:
    rows = table.RowPrinter(kind, wide=form == "wide", with_namespace=not query.namespace)
    watch = query.watch(link, kind)
    try:
        while True:
            event = watch.next()
            if event is None:
                return
            if event.type == "BOOKMARK" or (names and event.object["metadata"]["name"] not in names):
                continue
            if form == "json":
                click.echo(json.dumps(event.object))
            elif form == "yaml":
                click.echo("---\n" + output.as_yaml(event.object), nl=False)
            elif form == "name":
                click.echo(output.identity(event.object))
            else:
                rows.print([event.object])
    finally:
        watch.close()
