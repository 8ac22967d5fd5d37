"""`mactl contexteval eval`: what the gate is worth on questions that it has not seen. It reads the words and prints."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from michelangelo.cli import contexteval_options, options, output, table

__all__ = ["evaluate"]


@click.command(name="eval")
@click.argument("questions", type=click.Path(dir_okay=False, path_type=Path))
@contexteval_options.corpus
@contexteval_options.gate
@click.option("--engine", default="", metavar="ENGINE", help="Writes the answers; else they are sentences found.")
@click.option("--all", "all_questions", is_flag=True, help="Also questions that the gate was fitted with.")
@click.option(
    "--probes",
    type=click.IntRange(0),
    default=40,
    show_default=True,
    help="Facts changed at most, each asked; 0: none.",
)
@click.option(
    "--resample",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Fit again on N other splits of all questions, and see whether the promise is kept.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resamples.")
@click.option(
    "--report",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="*.html or *.json. Repeat.",
)
@options.report_format()
def evaluate(
    questions: Path,
    folder: Path,
    gate_file: Path | None,
    engine: str,
    files: tuple[Path, ...],
    output_format: Any,
    **words: Any,
) -> None:
    """Measure the corpus' gate with those of QUESTIONS (JSONL) that it has not seen.

    Rates with intervals, the risk-coverage curve, claims and citations checked one by one, and the same questions with
    one fact of the corpus changed. Exits with 0 whatever it finds.

    \b
    Example:
      mactl contexteval eval questions.jsonl --corpus corpus --report gate.html --report gate.json
    """
    evaluating = importlib.import_module("michelangelo.llm.contexteval.evaluation.evaluating")
    reporting = importlib.import_module("michelangelo.llm.contexteval.evaluation.reporting")
    gates = importlib.import_module("michelangelo.llm.contexteval.gate")
    labelled = importlib.import_module("michelangelo.llm.contexteval.questions")
    for file in files:
        reporting.check(file)
    asked = labelled.load(questions)
    gate = gates.load(gate_file or folder / gates.FILE_NAME)
    settings = evaluating.EvaluationSettings(
        all_questions=words["all_questions"],
        probes=words["probes"],
        resamplings=words["resample"],
        seed=words["seed"],
    )
    opened = contexteval_options.opened(engine)
    try:
        made = evaluating.evaluate(
            folder, asked, gate, engine=opened, settings=settings, report=lambda said: click.echo(said, err=True)
        )
    finally:
        if opened is not None:
            opened.close()
    for file in files:
        reporting.write(made, file)
        click.echo(f"{file}: {made.verdict}", err=True)
    if output_format != "table":
        output.print_data(reporting.to_dict(made), output_format)
        return
    table.print_rows(list(reporting.TITLES), reporting.rows(made))
    click.echo()
    for sentence in reporting.sentences(made):
        click.echo(sentence)
