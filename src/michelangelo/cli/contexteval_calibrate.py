"""`mactl contexteval calibrate`: a gate from labelled questions. It reads the words and prints."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import click

from michelangelo.cli import contexteval_options, options, output, table

__all__ = ["calibrate"]

_HELD_OUT: Final = "held-out"


@click.command()
@click.argument("questions", type=click.Path(dir_okay=False, path_type=Path))
@contexteval_options.corpus
@contexteval_options.gate
@click.option("--risk", type=options.SHARE, default="5%", show_default=True, help="False answers that are accepted.")
@click.option("--confidence", type=options.SHARE, default="95%", show_default=True, help="With which that is promised.")
@click.option(
    "--rate",
    type=click.Choice(("unanswerable", "answered")),
    default="unanswerable",
    show_default=True,
    help="Of which the share is promised: unanswerable questions that are answered, or answers that are wrong.",
)
@click.option("--mean", is_flag=True, help="Promise the risk on average only: fewer questions are needed.")
@click.option(
    "--next",
    "next_questions",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    metavar="N",
    help="What is measured on N later unanswerable questions or more keeps the promise too; 0: the true rate alone.",
)
@click.option(
    "--hold-out",
    type=click.FloatRange(0.0, 0.9),
    default=0.25,
    show_default=True,
    help="Share of the questions that is left for eval.",
)
@click.option(
    "--for-weights",
    type=click.FloatRange(0.05, 0.95),
    default=0.35,
    show_default=True,
    help="Share of the others that the weights are fitted with; the rest fits the threshold.",
)
@click.option("--salt", default="", metavar="TEXT", help="Another text gives other, independent splits.")
@options.report_format()
def calibrate(
    questions: Path,
    folder: Path,
    gate_file: Path | None,
    rate: Any,
    mean: bool,
    output_format: Any,
    **words: Any,
) -> None:
    """Fit the corpus' gate with QUESTIONS (JSONL): the risk that is promised, or a sentence on what it would take.

    \b
    Example:
      mactl contexteval calibrate questions.jsonl --corpus corpus --risk 5%
      mactl contexteval eval questions.jsonl --corpus corpus --report gate.html
    """
    calibration = importlib.import_module("michelangelo.llm.contexteval.calibration")
    gates = importlib.import_module("michelangelo.llm.contexteval.gate")
    labelled = importlib.import_module("michelangelo.llm.contexteval.questions")
    retrievers = importlib.import_module("michelangelo.llm.contexteval.retriever")
    corpora = importlib.import_module("michelangelo.llm.contexteval.corpus")
    asked = labelled.load(questions)
    corpus = corpora.open_corpus(folder)
    goal = calibration.Goal(
        risk=words["risk"],
        confidence=words["confidence"],
        rate=rate,
        guarantee="mean" if mean else "confidence",
        next_questions=words["next_questions"],
        share_for_weights=words["for_weights"],
        salt=words["salt"],
    )
    _, used = labelled.split(asked, words["hold_out"], salt=f"{_HELD_OUT} {words['salt']}")
    calibration.check(used, goal)
    retriever = retrievers.Retriever(corpus)
    rows, _ = calibration.examples(used, retriever.retrieve, report=lambda done: _say(done, len(used)))
    gate = calibration.calibrate(rows, goal, embedder=corpus.embedder_id, corpus_digest=corpus.digest)
    path = gate_file or folder / gates.FILE_NAME
    gates.save(gate, path)
    if output_format == "table":
        _print(gate, path, len(asked) - len(used))
    else:
        output.print_data(gate.to_dict(), output_format)


def _say(done: int, total: int) -> None:
    if done % 100 == 0 or done == total:
        click.echo(f"asked {done:,} of {total:,} questions", err=True)


def _print(gate: Any, path: Path, num_held_out: int) -> None:
    promise, details = gate.promise, gate.details
    table.print_rows(
        ["FEATURE", "WEIGHT"],
        [
            [one.feature, f"{one.weight:.3f}"]
            for one in sorted(gate.weights, key=lambda one: -one.weight)
            if one.weight > 0
        ],
    )
    click.echo()
    of = "unanswerable questions answered" if promise.rate == "unanswerable" else "answers wrong"
    how = "on average" if promise.guarantee == "mean" else f"with {promise.confidence:.0%} confidence"
    click.echo(
        f"threshold {gate.threshold:.4f}: {of} ≤ {promise.risk:.1%} {how} ({promise.errors} of {promise.questions} in "
        f"the calibration split, bound {promise.bound:.2%})"
    )
    cosine = details["cosine_cutoff"]
    beside = f", a cosine cut-off {details['cosine_coverage']:.1%}" if cosine is not None else ""
    click.echo(f"answers {gate.coverage:.1%} of the answerable questions of that split{beside}")
    click.echo(f"{path}: {gate.name}; {num_held_out} questions held out for eval", err=True)
