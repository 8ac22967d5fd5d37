"""`mactl wait`: until a condition, a field, a state or a deletion; a state that cannot come any more ends the wait."""

from __future__ import annotations

import re
from typing import Any

import click

from michelangelo import errors
from michelangelo.cli import connection, kind_names, options, waiting
from michelangelo.cli.get import Query
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.waiting import Check
from michelangelo.client.client import Object

__all__ = ["parse_for", "wait"]

_ENDED = {"Succeeded", "Failed", "Killed", "Skipped"}


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="KIND NAME… | KIND/NAME…")
@click.option(
    "--for",
    "wanted",
    required=True,
    metavar="WHAT",
    help="state=Succeeded, condition=Ready, condition=Ready=False, jsonpath={.spec.x}=y, or delete.",
)
@options.namespace
@options.selectors
@options.timeout
@click.pass_obj
def wait(
    invocation: Invocation,
    /,
    targets: tuple[str, ...],
    wanted: str,
    namespace: str,
    timeout: float,
    **selectors: str,
) -> None:
    """Wait until objects are in a state.

    \b
    Example:
      mactl wait pipeline_run/run-20260101-120000-0a1b2c3d --for=state=Succeeded --timeout=10m
      mactl wait pipeline/train --for=jsonpath='{.status.state}'=Ready
      mactl wait project/demo --for=delete
    """
    check = parse_for(wanted)
    with connection.connect(invocation) as link:
        query = Query(link.namespace(namespace), **selectors)
        chosen = [
            (kind, one)
            for kind, name in kind_names.parse_targets(targets)
            for one in ([name] if name else [obj["metadata"]["name"] for obj in query.list(link, kind)])
        ]
        if not chosen and wanted != "delete":
            raise errors.NotFoundError("no object matches")
        for kind, name in chosen:
            place = query.namespace if kind.namespaced else ""
            waiting.until(link, kind, name, place, check, timeout_seconds=timeout)
            click.echo(f"{kind_names.snake_case(kind)}/{name} {'deleted' if wanted == 'delete' else 'condition met'}")


def parse_for(wanted: str) -> Check:
    """What `--for` means. Raises SettingsError."""
    what, _, value = wanted.partition("=")
    if wanted == "delete":
        return lambda current: current is None
    if what == "condition" and value:
        name, _, status = value.partition("=")
        return lambda current: _condition(current, name) == (status or "True").lower()
    if what == "state" and value:
        return lambda current: _state(current, set(value.split(",")))
    match = re.fullmatch(r"jsonpath=['\"]?\{?(\.[^}=]+)\}?['\"]?(?:=(.*))?", wanted)
    if match:
        path, expected = match.group(1), match.group(2)
        return lambda current: _field(current, path, expected)
    raise errors.SettingsError(
        f"--for={wanted!r}: write state=Succeeded, condition=Ready, jsonpath={{.status.state}}=Ready, or delete"
    )


def _condition(current: Object | None, name: str) -> str:
    conditions = ((current or {}).get("status") or {}).get("conditions") or []
    return next(
        (str(one.get("status")).lower() for one in conditions if one.get("type", "").lower() == name.lower()), ""
    )


def _state(current: Object | None, wanted: set[str]) -> bool:
    status = (current or {}).get("status") or {}
    state = status.get("state", "")
    if state in _ENDED and state not in wanted:
        reason = f": {status['errorMessage']}" if status.get("errorMessage") else ""
        raise errors.WorkflowError(f"it ended {state}, and can no longer become {' or '.join(sorted(wanted))}{reason}")
    return state in wanted


def _field(current: Object | None, path: str, expected: str | None) -> bool:
    value: Any = current
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            value = None
    if expected is None:
        return value is not None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return value is not None and text == expected.strip("'\"")
