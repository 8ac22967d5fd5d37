"""`mactl contexteval ask`: a question, answered from a corpus or not at all. It reads the words and prints."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Literal

import click

from michelangelo.cli import contexteval_options, options, output

__all__ = ["ask"]


@click.command()
@click.argument("question", metavar="QUESTION|-")
@contexteval_options.corpus
@contexteval_options.gate
@click.option(
    "--engine", default="", metavar="ENGINE", help="Writes the answer: a YAML file with kind: …, or {kind: …}."
)
@click.option(
    "--style", type=click.Choice(("chat", "plain")), default="chat", show_default=True, help="How the engine is asked."
)
@click.option(
    "--unsupported",
    type=click.Choice(("remove", "refuse")),
    default="remove",
    show_default=True,
    help="What a claim that its source does not support leads to.",
)
@click.option("--passages", type=click.IntRange(1, 100), default=8, show_default=True, help="How many are looked at.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Read every file's digest first.")
@options.report_format()
def ask(
    question: str,
    folder: Path,
    gate_file: Path | None,
    engine: str,
    style: Literal["chat", "plain"],
    unsupported: Literal["remove", "refuse"],
    output_format: Any,
    **words: Any,
) -> None:
    """Answer QUESTION (-: from standard input) from the corpus, with citations, or exactly "Not in corpus".

    Without --engine the answer is made of sentences of the documents. Without a fitted gate, a rule of thumb decides
    that promises nothing.

    \b
    Example:
      mactl contexteval ask "What does a lease protect?" --corpus corpus
      mactl contexteval ask "What does a lease protect?" --corpus corpus --engine engine.yaml -o json
    """
    asking = importlib.import_module("michelangelo.llm.contexteval.asking")
    generating = importlib.import_module("michelangelo.llm.contexteval.generating")
    retriever = importlib.import_module("michelangelo.llm.contexteval.retriever")
    corpora = importlib.import_module("michelangelo.llm.contexteval.corpus")
    corpus = corpora.open_corpus(folder, verify=words["verify"])
    gate = _gate(folder, gate_file, corpus.digest)
    opened = contexteval_options.opened(engine)
    try:
        asker = asking.Asker(
            corpus,
            gate,
            engine=opened,
            retrieval=retriever.RetrieverSettings(passages=words["passages"]),
            generation=generating.GenerationSettings(style=style, unsupported=unsupported),
        )
        answer = asker.ask(sys.stdin.read() if question == "-" else question)
    finally:
        if opened is not None:
            opened.close()
    if output_format != "table":
        output.print_data(answer.to_dict(), output_format)
    else:
        _print(answer)


def _gate(folder: Path, file: Path | None, digest: str) -> Any:
    gates = importlib.import_module("michelangelo.llm.contexteval.gate")
    if file is None and not (folder / gates.FILE_NAME).exists():
        click.echo("no gate is fitted for this corpus: a rule of thumb decides, and promises nothing", err=True)
        return importlib.import_module("michelangelo.llm.contexteval.unfitted").UnfittedGate()
    gate = gates.load(file or folder / gates.FILE_NAME)
    for warning in gate.warnings(digest):
        click.echo(warning, err=True)
    return gate


def _print(answer: Any) -> None:
    click.echo(answer.text)
    if answer.citations:
        click.echo()
    for one in answer.citations:
        above = f", {' > '.join(one.section)}" if one.section else ""
        click.echo(f"[{one.number}] {one.document}{above}, characters {one.start}–{one.end}")
    decision = answer.decision
    promised = f", false answers ≤ {decision.risk:.1%}" if decision.risk is not None else ""
    why = f"; {answer.reason}" if answer.reason else ""
    click.echo(
        f"score {decision.score:.3f}, threshold {decision.threshold:.3f} ({decision.gate}{promised}){why}; corpus "
        f"{answer.corpus_digest[:12]}; {answer.timings['total'] * 1000:.0f} ms",
        err=True,
    )
    for warning in answer.warnings:
        click.echo(warning, err=True)
    for claim in answer.removed:
        click.echo(f"removed: {claim.text} ({'; '.join(claim.check.problems)})", err=True)
