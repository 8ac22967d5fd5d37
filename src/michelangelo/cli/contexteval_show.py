"""`mactl contexteval show`: what a corpus holds, and what a citation points to. It reads words, and prints."""

from __future__ import annotations

import importlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from michelangelo import errors
from michelangelo.cli import contexteval_options, options, output, table

__all__ = ["show"]


@click.command()
@click.argument("document", default="", metavar="[DOCUMENT]")
@contexteval_options.corpus
@click.option("--span", default="", metavar="START:END", help="Only these characters, as a citation names them.")
@options.report_format()
def show(document: str, folder: Path, span: str, output_format: Any) -> None:
    """List the documents of the corpus, or print what was read from DOCUMENT.

    \b
    Example:
      mactl contexteval show --corpus corpus
      mactl contexteval show guide.md --span 120:260 --corpus corpus
    """
    corpus = importlib.import_module("michelangelo.llm.contexteval.corpus").open_corpus(folder)
    if not document:
        if output_format != "table":
            output.print_data(
                {**corpus.to_dict(), "documents": [asdict(one) for one in corpus.documents]}, output_format
            )
            return
        rows = [[one.name, one.format, f"{one.num_chars:,}", str(one.num_chunks)] for one in corpus.documents]
        table.print_rows(["DOCUMENT", "FORMAT", "CHARACTERS", "CHUNKS"], rows)
        return
    text = corpus.text(document)
    start, end = 0, len(text)
    if span:
        match = re.fullmatch(r"(\d+):(\d+)", span)
        if match is None or not int(match[1]) <= int(match[2]) <= len(text):
            raise errors.SettingsError(
                f"--span {span!r} is no START:END within the {len(text):,} characters of {document}"
            )
        start, end = int(match[1]), int(match[2])
    if output_format != "table":
        output.print_data({"document": document, "start": start, "end": end, "text": text[start:end]}, output_format)
    else:
        click.echo(text[start:end])
