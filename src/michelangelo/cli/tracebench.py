"""`mactl tracebench …`: what changed between two versions, with error bars. Each verb is loaded when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from michelangelo.cli import groups
from michelangelo.cli.verbs import Verb

__all__ = ["TRACEBENCH_VERBS", "TracebenchGroup", "tracebench"]

TRACEBENCH_VERBS: Final[Mapping[str, Verb]] = {
    "record": Verb("tracebench_record:record", "Ask a suite, or read a trace, and keep what was answered"),
    "list": Verb("tracebench_list:list_recordings", "List the recordings of a store"),
    "compare": Verb("tracebench_compare:compare", "Say what changed between two recordings, and how sure that is"),
    "report": Verb("tracebench_compare:report", "Write a comparison as HTML, JUnit XML, Markdown or JSON"),
    "gate": Verb("tracebench_compare:gate", "Compare, and exit with 0 (pass), 1 (regression) or 4 (inconclusive)"),
    "watch": Verb("tracebench_watch:watch", "Look at an endpoint again and again, and alarm when it got worse"),
}


class TracebenchGroup(click.Group):
    """The verbs of the table, loaded one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(TRACEBENCH_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return groups.load(TRACEBENCH_VERBS[cmd_name]) if cmd_name in TRACEBENCH_VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in TRACEBENCH_VERBS.items()])


@click.group(cls=TracebenchGroup)
def tracebench() -> None:
    """Find what silently changed between two versions of a model, a prompt or a stack. No server is needed.

    \b
    Example:
      mactl tracebench record suite.yaml --engine old.yaml --name old
      mactl tracebench record suite.yaml --engine new.yaml --name new
      mactl tracebench gate old new --report report.html
    """
