"""Click groups that load a command when it is called, and print help from tables.

It knows no verb: the tables are in `cli.verbs` and in the registry of kinds.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

import click

from michelangelo.api.v2 import registry
from michelangelo.cli import kind_names, verbs
from michelangelo.cli.verbs import Verb

__all__ = ["KindGroup", "RootGroup", "load"]


class RootGroup(click.Group):
    """The verbs of the table, and one group per kind."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*verbs.VERBS, *sorted(kind_names.snake_case(kind) for kind in registry.KINDS.values())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in verbs.VERBS:
            return load(verbs.VERBS[cmd_name])
        kind = kind_names.find(cmd_name)
        return KindGroup(kind) if kind is not None else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in verbs.VERBS.items()])
        rows = []
        for kind in registry.KINDS.values():
            own = verbs.KIND_VERBS.get(kind.kind, {})
            rows.append(
                (kind_names.snake_case(kind), ", ".join([*own, *(v for v in verbs.GENERIC_VERBS if v not in own)]))
            )
        with formatter.section("Commands of one kind"):
            formatter.write_dl(rows)


class KindGroup(click.Group):
    """`mactl <kind> <verb>`: the verbs that all kinds share, bound to this kind, and those that only it has."""

    def __init__(self, kind: registry.Kind) -> None:
        name = kind_names.snake_case(kind)
        super().__init__(name, help=f"Objects of kind {kind.kind}.\n\nExample: mactl {name} get --all-namespaces")
        self.kind = kind

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = verbs.KIND_VERBS.get(self.kind.kind, {})
        if cmd_name in own:
            return load(own[cmd_name])
        if cmd_name not in verbs.GENERIC_VERBS:
            return None
        module = importlib.import_module("michelangelo.cli.kind_verbs")
        return cast(click.Command, module.bind(cmd_name, self.kind))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table().items()))

    def _table(self) -> Mapping[str, str]:
        own = {name: verb.help for name, verb in verbs.KIND_VERBS.get(self.kind.kind, {}).items()}
        return {**own, **{name: text for name, text in verbs.GENERIC_VERBS.items() if name not in own}}


def load(verb: Verb) -> click.Command:
    """The command that a table names."""
    module, _, attribute = verb.target.partition(":")
    return cast(click.Command, getattr(importlib.import_module(f"michelangelo.cli.{module}"), attribute))
