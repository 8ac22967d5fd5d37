"""`mactl llm score`: score all rows of an input, each exactly once. It reads the words and prints.

Everything else is in `michelangelo.llm.scorer`, which is loaded only when it is called.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import click

from michelangelo.cli import llm_score_tables as tables
from michelangelo.cli import options as shared
from michelangelo.cli import output
from michelangelo.cli.stopping import stopping

__all__ = ["score"]

_Format: TypeAlias = Literal["table", "json", "yaml"]
_PATHS: Final[Mapping[str, str]] = {
    "output_path": "output.path",
    "task": "task",
    "engine": "engine.kind",
    "model": "engine.model",
    "template": "prompt.template",
    "system": "prompt.system",
    "max_tokens": "sampling.max_tokens",
    "runner": "replicas.runner",
    "request_timeout": "limits.request_seconds",
    "max_errors": "limits.max_errors",
    "limit": "input.limit",
}
"""Options and the fields that they set."""


@click.command()
@click.argument("config", default="", metavar="[CONFIG]")
@click.option("--input", "inputs", multiple=True, metavar="PATH", help="File, folder, pattern or URL. Repeat.")
@click.option("--out", "output_path", default="", metavar="PATH", help="Where the results go: *.jsonl, *.parquet.")
@click.option("--task", default="", metavar="TASK", help="generate, choices, embed, reward or judge.")
@click.option("--engine", default="", metavar="KIND", help="torch, vllm, http, stub or python.")
@click.option("--model", default="", metavar="MODEL", help="The engine's model.")
@click.option("--template", default="", metavar="JINJA", help="The prompt, of a row's columns; @FILE reads it.")
@click.option("--system", default="", metavar="JINJA", help="The system prompt, likewise.")
@click.option("--max-tokens", type=int, default=None, metavar="N", help="Of an answer.")
@click.option("--replicas", default="", metavar="N|MIN:MAX", help="How many engines work at once.")
@click.option("--runner", default="", metavar="RUNNER", help="What a replica is: process, thread or ray.")
@click.option("--limit", type=int, default=None, metavar="N", help="The first N rows only.")
@click.option("--request-timeout", type=float, default=None, metavar="SECONDS", help="After which a row has failed.")
@click.option("--max-errors", default="", metavar="N|P%", help="Failed rows after which the job stops.")
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change any field. Repeat.")
@click.option("--fresh", is_flag=True, help="Start over: forget what an earlier call did.")
@click.option("--sweep", is_flag=True, help="Score a sample with 1, 2, 4, … requests at once, and find the knee.")
@click.option("--sweep-batches", default="", metavar="N,N,…", help="Other numbers of requests at once.")
@click.option("--sweep-rows", type=int, default=64, show_default=True, metavar="N", help="Rows of the sample.")
@click.option("--dry-run", is_flag=True, help="Check everything, show the first prompts, and score nothing.")
@click.option("--quiet", is_flag=True, help="No progress.")
@shared.report_format()
def score(config: str, inputs: tuple[str, ...], output_format: _Format, **options: Any) -> None:
    """Score all rows of an input, each exactly once, as the file CONFIG (YAML or JSON) and the options say.

    However it ends (Ctrl-C, kill -9, a full disk), the same command goes on where it was. A row that cannot be scored
    is recorded with its error in the output.

    \b
    Example:
      mactl llm score job.yaml
      mactl llm score --input prompts.jsonl --out answers.jsonl --model ./my-model --replicas 2
      mactl llm score job.yaml --set sampling.max_tokens=64 --max-errors 1%
      mactl llm score job.yaml --sweep
    """
    configuration = importlib.import_module("michelangelo.llm.scorer.config")
    chosen = configuration.load(config, [*_changes(inputs, options), *options["changes"]])
    display = importlib.import_module("michelangelo.llm.scorer.display").Display(is_on=not options["quiet"])
    if options["dry_run"]:
        _print(importlib.import_module("michelangelo.llm.scorer.dry_run").look(chosen), output_format, tables.dry_rows)
        return
    if options["sweep"]:
        with contextlib.redirect_stdout(sys.stderr):
            swept = importlib.import_module("michelangelo.llm.scorer.sweep").run(
                chosen,
                environment=os.environ,
                batches=options["sweep_batches"],
                rows=options["sweep_rows"],
                display=display,
            )
        _print(swept, output_format, tables.sweep_rows)
        return
    job = importlib.import_module("michelangelo.llm.scorer.job")
    with stopping("stopping; the same command goes on from here") as stop, contextlib.redirect_stdout(sys.stderr):
        outcome = job.score(
            chosen, is_fresh=options["fresh"], display=display, should_stop=lambda: bool(stop), environment=os.environ
        )
    _print(outcome.report, output_format, tables.report_rows)
    if not outcome.is_complete:
        sys.exit(128 + stop[0])


def _changes(inputs: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Options as changes to the document."""
    made = []
    if inputs:
        made.append(f"input.path={json.dumps(list(inputs))}")
    for name, path in _PATHS.items():
        value = options[name]
        if value not in ("", None):
            made.append(f"{path}={json.dumps(value)}")
    if options["replicas"]:
        low, colon, high = options["replicas"].partition(":")
        made += [f"replicas.min={low}", f"replicas.max={high if colon else low}"]
    return made


def _print(result: Mapping[str, Any], output_format: _Format, rows: Any) -> None:
    if output_format == "table":
        shown = list(rows(result))
        width = max(len(title) for title, _ in shown)
        for title, text in shown:
            click.echo(f"{title:<{width}}   {text}".rstrip())
    else:
        output.print_data(dict(result), output_format)
