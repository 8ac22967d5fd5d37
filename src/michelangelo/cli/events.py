"""`mactl events`: what happened to objects, oldest first, once or as it happens."""

from __future__ import annotations

from collections.abc import Sequence

import click

from michelangelo.api.v2 import registry
from michelangelo.api.v2.registry import Kind
from michelangelo.cli import connection, kind_names, options, output, table
from michelangelo.cli.connection import Connection
from michelangelo.cli.get import Query
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format
from michelangelo.client.client import Object
from michelangelo.meta import timestamps

__all__ = ["about", "events", "print_events"]


@click.command()
@options.namespace
@options.all_namespaces
@click.option("--for", "target", default="", metavar="KIND/NAME", help="Only what happened to this object.")
@click.option("--types", default="", metavar="TYPE,…", help="Only these types: Normal, Warning.")
@click.option("-w", "--watch", "watch", is_flag=True, help="Go on showing what happens.")
@output.output_option()
@click.pass_obj
def events(
    invocation: Invocation,
    namespace: str,
    all_namespaces: bool,
    target: str,
    types: str,
    watch: bool,
    output: Format,
) -> None:
    """Show what happened, oldest first.

    \b
    Example:
      mactl events -n demo
      mactl events --for pipeline_run/run-20260101-120000-0a1b2c3d -w
    """
    selector = _selector(*kind_names.parse_targets([target])[0]) if target else ""
    wanted = {word.capitalize() for word in types.split(",") if word}
    with connection.connect(invocation) as link:
        query = Query(link.namespace(namespace, everywhere=all_namespaces), field_selector=selector)
        found = [one for one in query.list(link, registry.get("Event")) if not wanted or one.get("type") in wanted]
        _print(_sorted(found), output, with_namespace=not query.namespace)
        if watch:
            _follow(link, query, {one["metadata"].get("uid") for one in found}, wanted, output)


def about(link: Connection, kind: Kind, name: str, namespace: str) -> list[Object]:
    """The events of one object, oldest first."""
    query = Query(namespace, field_selector=_selector(kind, name))
    return _sorted(list(query.list(link, registry.get("Event"))))


def print_events(found: Sequence[Object], *, indent: str = "", with_namespace: bool = False) -> None:
    """A table of events."""
    now = timestamps.system_clock()
    rows = []
    for one in found:
        involved = one.get("involvedObject") or {}
        kind = kind_names.find(str(involved.get("kind", "")))
        count = f" (x{one['count']})" if (one.get("count") or 1) > 1 else ""
        rows.append(
            [
                *([one["metadata"].get("namespace", "")] if with_namespace else []),
                indent + timestamps.age(_last(one), now) + count,
                str(one.get("type", "")),
                str(one.get("reason", "")),
                f"{kind_names.snake_case(kind) if kind else involved.get('kind', '')}/{involved.get('name', '')}",
                " ".join(str(one.get("message", "")).split()),
            ]
        )
    titles = [*(["NAMESPACE"] if with_namespace else []), indent + "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    table.print_rows(titles, rows)


def _print(found: Sequence[Object], form: Format, *, with_namespace: bool) -> None:
    if form in ("json", "yaml", "name"):
        output.print_objects(found, form)
    elif found:
        print_events(found, with_namespace=with_namespace)
    else:
        click.echo("No events.", err=True)


def _follow(link: Connection, query: Query, seen: set[str | None], wanted: set[str], form: Format) -> None:
    watch = query.watch(link, registry.get("Event"))
    try:
        while (event := watch.next()) is not None:
            one = event.object
            known = event.type == "ADDED" and one["metadata"].get("uid") in seen
            if event.type in ("ADDED", "MODIFIED") and not known and (not wanted or one.get("type") in wanted):
                _print([one], form, with_namespace=not query.namespace)
    finally:
        watch.close()


def _selector(kind: Kind, name: str) -> str:
    return f"involvedObject.kind={kind.kind},involvedObject.name={name}"


def _sorted(found: list[Object]) -> list[Object]:
    return sorted(found, key=lambda one: (_last(one), int(one["metadata"].get("resourceVersion") or 0)))


def _last(one: Object) -> str:
    return str(one.get("lastTimestamp") or one.get("eventTime") or one["metadata"].get("creationTimestamp") or "")
