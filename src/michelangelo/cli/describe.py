"""`mactl describe`: one object in full, for reading: its fields, its steps if it is a run, and its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.api.v2.registry import Kind
from michelangelo.cli import connection, events, kind_names, merge, options, table
from michelangelo.cli.connection import Connection
from michelangelo.cli.get import Query
from michelangelo.cli.invocation import Invocation
from michelangelo.client.client import Object
from michelangelo.meta import secrecy

__all__ = ["describe", "show"]

_HIDDEN: Final = frozenset({"managedFields", "ownerReferences", "uid", "resourceVersion", "generation", "selfLink"})
_LITERAL: Final = frozenset(
    {"labels", "annotations", "environ", "kwArgs", "parameters", "result", "content", "payload"}
)
"""Fields whose keys are the user's own."""
_WIDTH: Final = 4000
"""Longest text of one field; `mactl get -o yaml` shows all of it."""


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="KIND NAME… | KIND/NAME…")
@options.namespace
@options.selectors
@click.pass_obj
def describe(invocation: Invocation, /, targets: tuple[str, ...], namespace: str, **selectors: str) -> None:
    """Show objects in full.

    \b
    Example:
      mactl describe pipeline_run run-20260101-120000-0a1b2c3d
      mactl describe pipeline -l team=vision
    """
    with connection.connect(invocation) as link:
        query = Query(link.namespace(namespace), **selectors)
        show(link, kind_names.parse_targets(targets), query)


def show(link: Connection, wanted: list[tuple[Kind, str]], query: Query) -> None:
    """Print each wanted object; an empty name means all of a kind."""
    found: list[Object] = []
    for kind, name in wanted:
        place = query.namespace if kind.namespaced else ""
        found += [secrecy.shown(link.client.get(kind.kind, name, namespace=place))] if name else query.list(link, kind)
    if not found:
        raise errors.NotFoundError("no object matches")
    for position, obj in enumerate(found):
        if position:
            click.echo("\n" + "-" * 72 + "\n")
        _describe(link, obj)


def _describe(link: Connection, obj: Object) -> None:
    metadata = obj["metadata"]
    head = {
        "name": metadata["name"],
        "namespace": metadata.get("namespace"),
        "kind": f"{obj['kind']} ({obj['apiVersion']})",
        **{key: value for key, value in metadata.items() if key not in _HIDDEN | {"name", "namespace", "annotations"}},
        "annotations": {k: v for k, v in (metadata.get("annotations") or {}).items() if k != merge.LAST_APPLIED},
        "controlledBy": ", ".join(f"{o['kind']}/{o['name']}" for o in metadata.get("ownerReferences") or ()),
    }
    _print_fields(head, 0)
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    if obj["kind"] == "Secret":
        _print_fields({"data": dict.fromkeys(rest.pop("data", None) or {}, "(not shown)")}, 0, literal=True)
    _print_fields(rest, 0)
    status = dict(obj.get("status") or {})
    conditions = status.pop("conditions", None) or []
    steps = status.pop("steps", None) or []
    if status:
        _print_fields({"status": status}, 0)
    if conditions:
        click.echo("Conditions:")
        titles = ["  TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]
        table.print_rows(titles, [_condition(one) for one in conditions])
    if steps:
        click.echo("Steps:")
        table.print_rows(["  TASK", "STATE", "ATTEMPT", "STARTED", "ENDED", "MESSAGE"], [_step(one) for one in steps])
    if obj["kind"] != "Event":
        _print_events(link, obj)


def _print_fields(fields: Mapping[str, Any], depth: int, *, literal: bool = False) -> None:
    """`literal`: the keys are the user's, and are shown as they are."""
    for key, value in fields.items():
        if value is None or value == "" or value == [] or value == {}:
            continue
        title = "  " * depth + (key if literal else _title(key)) + ":"
        if isinstance(value, Mapping):
            click.echo(title)
            _print_fields(value, depth + 1, literal=literal or key in _LITERAL)
        elif isinstance(value, list):
            click.echo(title)
            _print_items(value, depth + 1)
        else:
            click.echo(f"{title:<20} {_text(key, value, depth)}")


def _print_items(values: list[Any], depth: int) -> None:
    for value in values:
        if isinstance(value, Mapping):
            click.echo("  " * depth + "-")
            _print_fields(value, depth + 1)
        else:
            click.echo("  " * depth + f"- {_text('', value, depth)}")


def _text(key: str, value: Any, depth: int) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > _WIDTH:
        text = f"{text[:_WIDTH]}… ({len(text)} characters; `-o yaml` shows them)"
    if "\n" in text:
        margin = "\n" + "  " * (depth + 2)
        return margin + margin.join(text.splitlines())
    return table.state(text) if key == "state" else text


def _title(key: str) -> str:
    """`startTime` as `Start Time`."""
    words = "".join(f" {char}" if char.isupper() else char for char in key).split()
    return " ".join(word[:1].upper() + word[1:] for word in words)


def _condition(one: Mapping[str, Any]) -> list[str]:
    fields = ("type", "status", "reason", "lastTransitionTime", "message")
    cells = [str(one.get(field) or "") for field in fields]
    return ["  " + cells[0], *cells[1:4], " ".join(cells[4].split())]


def _step(one: Mapping[str, Any]) -> list[str]:
    name = str(one.get("displayName") or one.get("name") or "")
    times = [str(one.get(field) or "").partition(".")[0].rstrip("Z") for field in ("startTime", "endTime")]
    message = " ".join(str(one.get("message") or "").split())
    return ["  " + name, str(one.get("state") or ""), str(one.get("attempt") or ""), *times, message]


def _print_events(link: Connection, obj: Object) -> None:
    kind = registry.get(obj["kind"])
    found = events.about(link, kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
    click.echo("Events:" if found else "Events: none")
    if found:
        events.print_events(found, indent="  ")
