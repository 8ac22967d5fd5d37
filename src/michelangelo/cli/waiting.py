"""Waiting for an object to come into a state, by watching it: no polling, one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from michelangelo import errors
from michelangelo.api.v2.registry import Kind
from michelangelo.cli import kind_names
from michelangelo.cli.connection import Connection
from michelangelo.client.client import Object

__all__ = ["Check", "until", "until_gone"]

Check = Callable[[Object | None], bool]
"""Whether this state (None: gone) is the one waited for; may raise to end the wait."""


def until(
    link: Connection, kind: Kind, name: str, namespace: str, check: Check, *, timeout_seconds: float = 0.0
) -> Object | None:
    """The first state that passes `check`. Raises NotFoundError when the object goes and that is no success, and
    UnavailableError when `timeout_seconds` (0: none) are over."""
    deadline = time.monotonic() + timeout_seconds if timeout_seconds else None
    watch = link.client.watch(kind.kind, namespace=namespace, field_selector=f"metadata.name={name}")
    try:
        current = _get(link, kind, name, namespace)
        if check(current):
            return current
        if current is None:
            raise errors.NotFoundError(f"{kind.resource} {name!r} not found")
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise errors.UnavailableError(
                    f"{kind_names.snake_case(kind)}/{name} did not get there within {timeout_seconds:g} s"
                )
            event = watch.next(left)
            if event is None or event.type == "BOOKMARK" or event.object["metadata"]["name"] != name:
                continue
            current = None if event.type == "DELETED" else event.object
            if check(current):
                return current
            if current is None:
                raise errors.NotFoundError(f"{kind_names.snake_case(kind)}/{name} was deleted meanwhile")
    finally:
        watch.close()


def until_gone(
    link: Connection, kind: Kind, name: str, namespace: str, *, uid: str = "", timeout_seconds: float = 0.0
) -> None:
    """Wait for the end of an object; another one of the same name (another uid) counts as its end."""

    def gone(current: Object | None) -> bool:
        return current is None or bool(uid and current["metadata"].get("uid") != uid)

    until(link, kind, name, namespace, gone, timeout_seconds=timeout_seconds)


def _get(link: Connection, kind: Kind, name: str, namespace: str) -> Object | None:
    try:
        return link.client.get(kind.kind, name, namespace=namespace)
    except errors.NotFoundError:
        return None
