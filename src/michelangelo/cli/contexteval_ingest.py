"""`mactl contexteval ingest`: documents into a corpus. It reads the words and prints."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from michelangelo.cli import contexteval_options, options, output, table

__all__ = ["ingest"]

_SHOWN = 20


@click.command()
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|FOLDER]…")
@contexteval_options.corpus
@click.option("--embedder", metavar="NAME", help="minilm (the default), hashing or hashing:DIMENSIONS.")
@click.option("--language", metavar="NAME", help="Of the documents, for stems: english (the default), german, …, none.")
@click.option("--chunk-chars", type=click.IntRange(100, 20_000), help="What a chunk aims at. [default: 900]")
@click.option("--code-chars", type=click.IntRange(100, 100_000), help="Code up to this stays whole. [default: 2000]")
@click.option(
    "--max-document-mb", type=click.FloatRange(0, min_open=True), help="Leave out larger files. [default: 1000]"
)
@click.option(
    "--max-parsed-mb", type=click.FloatRange(0, min_open=True), help="The same but for plain text. [default: 64]"
)
@click.option("--max-pages", type=click.IntRange(1), help="Leave out longer PDFs. [default: 5000]")
@click.option("--index", type=click.Choice(("auto", "flat", "ivf")), help="Kind of FAISS index. [default: auto]")
@click.option("--rebuild", is_flag=True, help="Make everything anew, whatever state the corpus is in.")
@click.option("--wait", "waits", is_flag=True, help="Wait for another ingest's end instead of failing.")
@options.report_format()
def ingest(
    sources: tuple[Path, ...], folder: Path, rebuild: bool, waits: bool, output_format: Any, **given: Any
) -> None:
    """Make the corpus hold what the files and folders hold now: Markdown, HTML, PDF, text, code and docx.

    Without any, those of the last time. What did not change is not embedded again; what is gone is removed.
    Settings that are left out are those of the corpus.

    \b
    Example:
      mactl contexteval ingest docs/ README.md --corpus corpus
      mactl contexteval ingest --corpus corpus
    """
    ingesting = importlib.import_module("michelangelo.llm.contexteval.ingest")
    chosen = {name: value for name, value in given.items() if value is not None}
    done = ingesting.ingest(
        sources, folder, chosen, rebuild=rebuild, waits=waits, report=lambda said: click.echo(said, err=True)
    )
    if output_format != "table":
        output.print_data(done.to_dict(), output_format)
        return
    rows = [[kind, str(len(names))] for kind, names in _counts(done).items()]
    table.print_rows(["FILES", "NUMBER"], rows)
    made = done.written
    click.echo(
        f"\n{table.counted(made.num_documents, 'document')}, {table.counted(made.num_chunks, 'chunk')}, "
        f"{made.num_embedded:,} of them embedded now, in {done.seconds:.1f} s. Corpus {done.digest[:12]}."
    )
    for one in done.skipped[:_SHOWN]:
        click.echo(f"skipped: {one.name} {one.reason}", err=True)
    if len(done.skipped) > _SHOWN:
        click.echo(f"skipped: {len(done.skipped) - _SHOWN:,} more; see -o json", err=True)


def _counts(done: Any) -> dict[str, Any]:
    return {name: getattr(done, name) for name in ("added", "changed", "removed", "kept", "skipped")}
