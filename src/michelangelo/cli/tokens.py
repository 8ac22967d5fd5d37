"""`mactl tokens`: count tokens and say what they cost, before anything is sent. It reads the words and prints.

Everything else is in `michelangelo.llm.tokens`, which is loaded only when it is called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import click

from michelangelo import errors
from michelangelo.cli import output
from michelangelo.cli import tokens_tables as tables

__all__ = ["tokens"]

_Format: TypeAlias = Literal["table", "json", "yaml", "markdown"]
_FORMATS: Final[tuple[_Format, ...]] = ("table", "json", "yaml", "markdown")
_OVER_BUDGET: Final = 3


def _room(name: str) -> Any:
    return importlib.import_module(f"michelangelo.llm.tokens.{name}")


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--model", default="gpt-4o-mini", show_default=True, metavar="MODEL", help="Whose tokens and prices.")
@click.option("--provider", default="", metavar="NAME", help="Who sells it, where several do.")
@click.option("--tokenizer", default="", metavar="NAME|PATH", help="Instead of the model's: a tokenizer.json, …")
@click.option("--column", default="", metavar="NAME", help="The text of rows; else messages, prompt, text, ….")
@click.option("--template", default="", metavar="JINJA", help="Makes the prompt of each row; @FILE reads it.")
@click.option("--prompts", is_flag=True, help="The files hold templates: f-strings in .py, Jinja. Show their holes.")
@click.option("--value", "values", multiple=True, metavar="NAME=TEXT", help="With --prompts: what fills a hole.")
@click.option("--hole-tokens", type=int, default=100, show_default=True, metavar="N", help="Of a hole without one.")
@click.option("--image", "images", multiple=True, metavar="FILE|WxH", help="An image to be counted. Repeat.")
@click.option("--pipeline", default="", metavar="FILE", help="A YAML file of stages, instead of paths.")
@click.option("--calls", type=int, default=None, metavar="N", help="Else one for each row or file.")
@click.option("--output-tokens", default="", metavar="P50[:P95]", help="Of an answer. Else 256:1024 is assumed.")
@click.option("--pilot", default="", metavar="FILE", help="Answers of a trial run, or a scorer's output.")
@click.option("--reasoning-tokens", type=int, default=0, metavar="N", help="Of a call, beside its answer.")
@click.option("--retries", default="0", metavar="SHARE", help="Calls sent again: 0.05, 5% or 12/400 as counted.")
@click.option("--cached", default="0", metavar="SHARE", help="Input tokens read from a cache, likewise.")
@click.option("--batch", is_flag=True, help="By the vendor's batch API.")
@click.option("--at", type=click.DateTime(["%Y-%m-%d"]), default=None, metavar="DAY", help="Prices of that day.")
@click.option("--prices", "own_prices", default="", metavar="FILE", help="Prices of your own, YAML or JSON.")
@click.option("--level", type=float, default=0.9, show_default=True, metavar="P", help="Of the interval.")
@click.option("--currency", default="USD", show_default=True, metavar="CODE", help="To show the cost in.")
@click.option("--rate", "rates", multiple=True, metavar="CODE=N", help="Units for one USD. Repeat.")
@click.option("--self-hosted", default="", metavar="MODEL", help="Beside it: this model on GPUs, by the planner.")
@click.option("--hardware", default="h100", show_default=True, metavar="KIND[:N]", help="With --self-hosted.")
@click.option("--gpu-hour", type=float, default=None, metavar="USD", help="With --self-hosted; else a bundled price.")
@click.option("--budget", default="", metavar="AMOUNT", help="Exit with 3 if the upper bound is over: 25usd.")
@click.option("--diff", "base", default="", metavar="BASE", help="Compare with a git revision, path or JSON report.")
@click.option("--count-only", is_flag=True, help="No cost.")
@click.option("--processes", type=click.IntRange(1, 256), default=2, show_default=True, metavar="N", help="At once.")
@click.option(
    "-o", "--output", "output_format", type=click.Choice(_FORMATS), default="table", show_default=True, help="Format."
)
def tokens(paths: tuple[str, ...], output_format: _Format, **options: Any) -> None:
    """Count tokens of PATHs (files, folders, JSONL, Parquet, - for standard input) and say what they cost.

    The cost is an interval: of outputs, retries and cache hits only a distribution is known. Exit code: 0, 2 for
    what is wrong in the call, 3 if the upper bound is over the budget.

    \b
    Example:
      mactl tokens prompts.jsonl --model gpt-4o-mini --pilot answers.jsonl --budget 25usd
      mactl tokens src/ --model claude-sonnet-4-5 --count-only
      mactl tokens prompts/ --diff origin/main > comment.md
      mactl tokens --pipeline pipeline.yaml --batch --currency EUR --rate EUR=0.92
    """
    if not (paths or options["images"] or options["pipeline"]):
        raise errors.SettingsError("nothing to count: name files or folders, - for standard input, or --pipeline")
    if options["count_only"] and options["budget"]:
        raise errors.SettingsError("--budget needs the cost: leave out --count-only")
    if options["prompts"]:
        _print_prompts(paths, output_format, options)
        return
    report = _room("work").make(paths, _asked(options))
    if options["base"]:
        document = _room("work").compared(options["base"], paths, _asked(options), report)
        click.echo(document, nl=False)
    elif output_format == "table":
        for line in tables.lines(report.to_dict()):
            click.echo(line)
    elif output_format == "markdown":
        click.echo(tables.markdown(report.to_dict()), nl=False)
    else:
        output.print_data(report.to_dict(), output_format)
    if report.is_over:
        click.echo(tables.over_budget(report.to_dict()), err=True)
        sys.exit(_OVER_BUDGET)


def _asked(options: Mapping[str, Any]) -> Any:
    names = (
        "model", "provider", "tokenizer", "column", "images", "pipeline", "calls", "output_tokens", "pilot",
        "reasoning_tokens", "retries", "cached", "batch", "own_prices", "level", "currency", "rates", "self_hosted",
        "hardware", "gpu_hour", "budget", "count_only", "processes",
    )  # fmt: skip
    template = options["template"]
    if template.startswith("@"):
        try:
            template = Path(template[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise errors.SettingsError(f"--template {template}: it cannot be read: {e}") from e
    at = options["at"].date() if options["at"] else None
    return _room("work").Asked(**{name: options[name] for name in names}, template=template, at=at)


def _print_prompts(paths: tuple[str, ...], output_format: _Format, options: Mapping[str, Any]) -> None:
    wrong = [text for text in options["values"] if "=" not in text]
    if wrong:
        raise errors.SettingsError(f"--value {wrong[0]!r}: write it as NAME=TEXT")
    values = dict(text.split("=", 1) for text in options["values"])
    found = _room("work").prompts(
        paths, options["model"], values, options["hole_tokens"], tokenizer=options["tokenizer"]
    )
    if output_format == "json" or output_format == "yaml":
        output.print_data(found, output_format)
    else:
        for line in tables.prompt_lines(found):
            click.echo(line)
