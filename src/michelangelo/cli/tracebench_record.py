"""`mactl tracebench record`: a suite asked of an engine, found in a trace, or judged anew. It only reads words."""

from __future__ import annotations

import datetime
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from michelangelo import errors
from michelangelo.cli import options as shared
from michelangelo.cli import output, tracebench_options

__all__ = ["record"]


@click.command()
@click.argument("suite", type=click.Path(path_type=Path))
@click.option("--engine", default="", metavar="ENGINE", help="A YAML file with kind: …, or the same as {kind: …}.")
@click.option("--trace", type=click.Path(path_type=Path), help="Spans (OTLP JSON) or answers (JSONL) instead.")
@click.option("--rescore", default="", metavar="RECORDING", help="Judge the answers of a recording anew instead.")
@click.option("--name", default="main", show_default=True, help="What the recording is called in the store.")
@click.option("--system-prompt", type=click.Path(path_type=Path), help="A file: belongs to the version, not the suite.")
@click.option("--template", type=click.Path(path_type=Path), help="A Jinja file with {{ prompt }}, {{ vars.NAME }}.")
@click.option("--repeats", type=click.IntRange(1, 1000), help="Answers per case, instead of the suite's.")
@click.option("--temperature", type=click.FloatRange(0, 10), help="Instead of the suite's.")
@click.option("--max-tokens", type=click.IntRange(1), help="Instead of the suite's.")
@click.option("--embed", is_flag=True, help="Keep an embedding of each answer, for drift of meaning.")
@tracebench_options.engines
@tracebench_options.store
@shared.report_format()
def record(suite: Path, store: Path, output_format: Any, **words: Any) -> None:
    """Ask every case of SUITE and keep the answers, judged, as the next version of a name.

    \b
    Example:
      mactl tracebench record suite.yaml --engine engine.yaml --name llama --repeats 3
      mactl tracebench record suite.yaml --trace spans.json --name production
      mactl tracebench record suite.yaml --rescore llama@2 --name llama
    """
    sources = [words[name] for name in ("engine", "trace", "rescore") if words[name]]
    if len(sources) != 1:
        raise errors.SettingsError("say where the answers come from: exactly one of --engine, --trace and --rescore")
    stores = importlib.import_module("michelangelo.llm.tracebench.store")
    stores.check_name(words["name"])
    asked = importlib.import_module("michelangelo.llm.tracebench.suite").load(suite)
    opened = tracebench_options.opened_judges(words["judges"], words["embedder"])
    try:
        made = _made(asked, _options(words, opened), words, store)
    finally:
        for engine in opened.values():
            engine.close()
    header = stores.save(store, made)
    passed = sum(row.passed for row in made.rows)
    failed = sum(bool(row.answer.error) for row in made.rows)
    if output_format == "table":
        click.echo(f"{header.reference}  {header.digest[:12]}  {passed:,} of {len(made.rows):,} answers passed")
        if failed:
            click.echo(f"{failed:,} answers are errors of the engine, and count as failed", err=True)
        for note in header.notes:
            click.echo(note, err=True)
    else:
        output.print_data(
            {
                "reference": header.reference,
                "digest": header.digest,
                "answers": len(made.rows),
                "passed": passed,
                "engine_errors": failed,
                "notes": list(header.notes),
            },
            output_format,
        )


def _options(words: dict[str, Any], opened: dict[str, Any]) -> Any:
    sampling = {name: words[name] for name in ("temperature", "max_tokens") if words[name] is not None}
    return importlib.import_module("michelangelo.llm.tracebench.recorder").Options(
        name=words["name"],
        system=_text(words["system_prompt"]),
        template=_text(words["template"]),
        repeats=words["repeats"] or 0,
        sampling=sampling,
        embeds=words["embed"],
        engines=opened,
    )


def _made(asked: Any, options: Any, words: dict[str, Any], store: Path) -> Any:
    recorder = importlib.import_module("michelangelo.llm.tracebench.recorder")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if words["rescore"]:
        stores = importlib.import_module("michelangelo.llm.tracebench.store")
        return recorder.rescored(stores.read(store, words["rescore"]), asked, options, now)
    if words["trace"]:
        traces = importlib.import_module("michelangelo.llm.tracebench.traces")
        return traces.record(asked, words["trace"], options, now)
    engine = tracebench_options.opened(words["engine"])
    total = sum(options.repeats or case.repeats for case in asked.cases)
    try:
        return recorder.record(asked, engine, options, now, _progress(total))
    finally:
        engine.close()


def _progress(total: int) -> Callable[[int], None]:
    """A line that is written over, on a terminal only."""
    step = max(1, total // 200)

    def told(number: int) -> None:
        if sys.stderr.isatty() and (number % step == 0 or number == total):
            print(
                f"\r{number:,} of {total:,} answers", end="\n" if number == total else "", file=sys.stderr, flush=True
            )

    return told


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise errors.SettingsError(f"{path} cannot be read: {e}") from e
