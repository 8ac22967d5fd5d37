"""`mactl contexteval …`: answers from a corpus, or "Not in corpus". Each verb is loaded when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from michelangelo.cli import groups
from michelangelo.cli.verbs import Verb

__all__ = ["CONTEXTEVAL_VERBS", "ContextevalGroup", "contexteval"]

CONTEXTEVAL_VERBS: Final[Mapping[str, Verb]] = {
    "ingest": Verb("contexteval_ingest:ingest", "Read documents into a corpus: only what changed is read again"),
    "ask": Verb("contexteval_ask:ask", "Answer a question from a corpus, with citations, or say that it is not there"),
    "calibrate": Verb("contexteval_calibrate:calibrate", "Fit the gate to a promised risk, with labelled questions"),
    "eval": Verb("contexteval_eval:evaluate", "Measure the gate on questions that it has not seen, with a report"),
    "show": Verb("contexteval_show:show", "List the documents of a corpus, or print a span that was cited"),
}


class ContextevalGroup(click.Group):
    """The verbs of the table, loaded one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(CONTEXTEVAL_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return groups.load(CONTEXTEVAL_VERBS[cmd_name]) if cmd_name in CONTEXTEVAL_VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in CONTEXTEVAL_VERBS.items()])


@click.group(cls=ContextevalGroup)
def contexteval() -> None:
    """Answer questions from a corpus and nothing else: cited, checked, or exactly "Not in corpus". No server is needed.

    \b
    Example:
      mactl contexteval ingest docs/ --corpus corpus
      mactl contexteval ask "What does a lease protect?" --corpus corpus
    """
