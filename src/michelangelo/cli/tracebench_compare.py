"""`mactl tracebench compare`, `report` and `gate`: one comparison, shown, written, or turned into an exit code."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from michelangelo.cli import options as shared
from michelangelo.cli import output, table, tracebench_options

__all__ = ["compare", "gate", "report"]


@click.command()
@click.argument("a")
@click.argument("b")
@tracebench_options.settings
@tracebench_options.store
@shared.report_format()
def compare(a: str, b: str, store: Path, output_format: Any, **words: Any) -> None:
    """Say what changed from recording A to recording B, and how sure that is. Exits with 0 whatever it finds.

    A recording is NAME (the latest), NAME@VERSION, the beginning of a digest, or a folder.

    \b
    Example:
      mactl tracebench compare old new@3 --tolerance 2%
    """
    _show(_compared(a, b, store, words), output_format)


@click.command()
@click.argument("a")
@click.argument("b")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--allow-inconclusive", is_flag=True, help="An inconclusive verdict is no failure in JUnit XML.")
@tracebench_options.settings
@tracebench_options.store
def report(a: str, b: str, files: tuple[Path, ...], store: Path, allow_inconclusive: bool, **words: Any) -> None:
    """Write the comparison of A and B: *.html, *.xml (JUnit), *.md (for a pull request), *.json.

    \b
    Example:
      mactl tracebench report old new report.html junit.xml comment.md
    """
    writing = importlib.import_module("michelangelo.llm.tracebench.reporting.writing")
    for file in files:
        writing.check(file)
    made = _compared(a, b, store, words)
    for file in files:
        writing.write(made, file, allows_inconclusive=allow_inconclusive)
        click.echo(f"{file}: {made.state}", err=True)


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--allow-inconclusive", is_flag=True, help="Exit with 0 when it cannot be told.")
@click.option(
    "--report", "files", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Write it too. Repeat."
)
@tracebench_options.settings
@tracebench_options.store
@shared.report_format()
@click.pass_context
def gate(ctx: click.Context, /, a: str, b: str, store: Path, output_format: Any, **words: Any) -> None:
    """Compare A and B, and exit with 0 (pass), 1 (regression) or 4 (inconclusive: too few cases to tell).

    \b
    Example:
      mactl tracebench gate old new --report report.html --report junit.xml
    """
    writing = importlib.import_module("michelangelo.llm.tracebench.reporting.writing")
    for file in words["files"]:
        writing.check(file)
    made = _compared(a, b, store, words)
    for file in words["files"]:
        writing.write(made, file, allows_inconclusive=words["allow_inconclusive"])
    _show(made, output_format)
    code = importlib.import_module("michelangelo.llm.tracebench.verdict").EXIT_CODES[made.state]
    ctx.exit(0 if made.state == "inconclusive" and words["allow_inconclusive"] else code)


def _compared(a: str, b: str, store: Path, words: dict[str, Any]) -> Any:
    stores = importlib.import_module("michelangelo.llm.tracebench.store")
    verdict = importlib.import_module("michelangelo.llm.tracebench.verdict")
    comparison = importlib.import_module("michelangelo.llm.tracebench.comparison")
    settings = verdict.Settings(**{name: words[name] for name in tracebench_options.SETTINGS})
    return comparison.compare(stores.read(store, a), stores.read(store, b), settings)


def _show(made: Any, output_format: Any) -> None:
    if output_format != "table":
        summary = importlib.import_module("michelangelo.llm.tracebench.comparison").summary(made)
        output.print_data(summary, output_format)
        return
    tables = importlib.import_module("michelangelo.llm.tracebench.reporting.tables")
    table.print_rows(list(tables.MEASURE_TITLES), tables.measure_rows(made))
    click.echo()
    if made.drift:
        table.print_rows(list(tables.DRIFT_TITLES), tables.drift_rows(made))
        click.echo()
    for sentence in [*tables.noise_sentences(made), *tables.left_out(made)]:
        click.echo(sentence)
    click.echo(f"{made.state}:")
    for reason in made.reasons:
        click.echo(f"  {reason}")
