"""`mactl llm search`: trials of a configuration with other learning rates, ranks, methods or any fields; one report.

It reads the words and prints; the search is in `michelangelo.llm.finetune.hpo`, which is loaded only to search.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
from typing import Any, Literal

import click
import yaml

from michelangelo import errors
from michelangelo.cli import options as shared
from michelangelo.cli import output, table

__all__ = ["search"]


@click.command()
@click.argument("config", metavar="CONFIG")
@click.option("--trials", default=12, show_default=True, type=click.IntRange(1, 10_000), help="How many runs.")
@click.option(
    "--learning-rate", default="", metavar="LOW:HIGH", help="Range, searched by factors.  [default: 1e-5:1e-3]"
)
@click.option("--rank", default="", metavar="N,N,…", help="Ranks of adapters to try.  [default: 4,16,64]")
@click.option("--method", default="", metavar="NAME,…", help="Of full, lora and qlora, those to try.")
@click.option(
    "--choose",
    "choices",
    multiple=True,
    metavar="PATH=[VALUE, …]",
    help="Values of any other field, as a YAML list: training.micro_batch=[1, 4]. Repeatable.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change a field for all trials. Repeatable."
)
@click.option("--concurrent", default=0, help="Runs at a time; 0: one per GPU, or one where there is none.")
@click.option("--asha", is_flag=True, help="Halt runs that are worse than others after as many steps.")
@click.option("--seed", default=0, help="Of the values that are tried.")
@click.option("--fresh", is_flag=True, help="Put aside what an earlier search of this output folder did.")
@shared.report_format()
def search(
    config: str, trials: int, changes: tuple[str, ...], output_format: Literal["table", "json", "yaml"], **words: Any
) -> None:
    """Search the learning rate and the rank of adapters, or any other fields, with Ray Tune, here or on a cluster.

    The report (table, plot, best.yaml) is in the output folder of CONFIG. The same command continues an interrupted
    search; a trial that fails is a row of the report.

    \b
    Example:
      mactl llm search config.yaml --trials 12 --learning-rate 1e-5:1e-3 --rank 4,16,64
      mactl llm search config.yaml --method full,lora --asha
    """
    overrides = importlib.import_module("michelangelo.llm.finetune.overrides")
    space = importlib.import_module("michelangelo.llm.finetune.hpo.space")
    chosen = overrides.load(config, changes)
    searched = _space(space, words, chosen.adapter.method)
    # Libraries print to standard output, which is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        searching = importlib.import_module("michelangelo.llm.finetune.hpo.search")
    reporting = importlib.import_module("michelangelo.llm.finetune.hpo.report")
    options = searching.SearchOptions(
        scheduler="asha" if words["asha"] else "all",
        num_concurrent=words["concurrent"],
        seed=words["seed"],
        fresh=words["fresh"],
    )
    with contextlib.redirect_stdout(sys.stderr):
        report = searching.search(chosen, searched, num_trials=trials, options=options)
    if output_format == "table":
        _print_table(report)
    else:
        output.print_data(reporting.to_dict(report), output_format)
    if report.best is None:
        click.echo(f"no trial came to its end with a loss: see {report.folder}/report.md", err=True)
        sys.exit(1)


def _space(space: Any, words: dict[str, Any], method: str) -> dict[str, Any]:
    """Raises SettingsError with everything that is wrong."""
    methods = [name for name in words["method"].split(",") if name]
    found = dict(space.DEFAULT)
    if set(methods or [method]) == {"full"}:
        # Without adapters there is no rank.
        del found["adapter.rank"]
    wrong: list[str] = []

    def put(option: str, path: str, parse: Any) -> None:
        try:
            found[path] = parse()
        except ValueError as e:
            wrong.append(f"  {option}: {e}")

    if words["learning_rate"]:
        put("--learning-rate", "optimizer.learning_rate", lambda: space.parse_range(words["learning_rate"]))
    if words["rank"]:
        put("--rank", "adapter.rank", lambda: space.parse_choice(_integers(words["rank"])))
    if methods:
        put("--method", "adapter.method", lambda: space.parse_choice(methods))
    for choice in words["choices"]:
        path, _, text = choice.partition("=")
        put(f"--choose {path}", path, lambda text=text: space.parse_choice(_values(text)))
    if wrong:
        raise errors.SettingsError("the search cannot start:\n" + "\n".join(wrong))
    return found


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as e:
        raise ValueError(f"{text!r} are no whole numbers with commas between them, such as 4,16,64") from e


def _values(text: str) -> list[Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ValueError(f"{text!r} is no YAML: {str(e).splitlines()[0]}") from e
    if not isinstance(values, list):
        raise ValueError(f"{text!r} is no list in brackets, such as [1, 4]")
    return values


def _print_table(report: Any) -> None:
    paths = list(dict.fromkeys(path for trial in report.trials for path in trial.values))
    rows = [
        [
            trial.name,
            *(_short(trial.values.get(path, "")) for path in paths),
            f"{trial.loss:.4f}" if math.isfinite(trial.loss) else "",
            str(trial.step),
            trial.state,
            trial.message.partition("\n")[0][:100],
        ]
        for trial in report.trials
    ]
    titles = ["TRIAL", *(path.rpartition(".")[2].upper() for path in paths), "LOSS", "STEPS", "STATE", "MESSAGE"]
    table.print_rows(titles, rows)
    if report.best is not None:
        click.echo(f"\nbest: trial {report.best.name}; run it with: mactl llm finetune {report.folder}/best.yaml")
    click.echo(f"report: {report.folder}/report.md")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
