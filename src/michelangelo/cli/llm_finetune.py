"""`mactl llm finetune`: train as a configuration says; progress to standard error, the result to standard output.

It reads the words and prints; everything else is in `michelangelo.llm.finetune`, which is loaded only to train.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import click

from michelangelo.app import settings
from michelangelo.cli import options as shared
from michelangelo.cli import output
from michelangelo.cli.stopping import stopping

__all__ = ["finetune"]

_Format: TypeAlias = Literal["table", "json", "yaml"]
_TITLES: Final = {"peak_memory_bytes": "peak memory", "tokens_per_second": "tokens/s", "mfu": "MFU"}
"""What the report says was measured."""
_PLANNED: Final = {"peak_memory_bytes": "allocated_bytes", "tokens_per_second": "tokens_per_second", "mfu": "mfu"}
"""Where the plan says the same."""
_MAX_ALERTS: Final = 10
_STOPPING: Final = "stopping after this step, with a checkpoint; once more to stop at once"


@click.command()
@click.argument("config", metavar="CONFIG")
@click.option(
    "--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change a field: training.max_steps=10. Repeatable."
)
@click.option("--resume", default="", metavar="auto|never|PATH", help="From which checkpoint to go on.")
@click.option("--dry-run", is_flag=True, help="Check the configuration, print the plan, and train nothing.")
@click.option("--quiet", is_flag=True, help="No progress.")
@shared.report_format()
def finetune(
    config: str, changes: tuple[str, ...], resume: str, dry_run: bool, quiet: bool, output_format: _Format
) -> None:
    """Train a model: pre-training, fine-tuning, LoRA, QLoRA, DPO, as the file CONFIG (YAML or JSON) says.

    Ctrl-C finishes the step, saves a checkpoint and ends with 130; the same command goes on from there. A second
    Ctrl-C ends at once.

    \b
    Example:
      mactl llm finetune config.yaml
      mactl llm finetune config.yaml --set training.max_steps=10 --set optimizer.learning_rate=1e-5
      mactl llm finetune config.yaml --dry-run -o json
    """
    chosen = importlib.import_module("michelangelo.llm.finetune.overrides").load(config, changes)
    if resume:
        checkpoint = chosen.checkpoint.model_copy(update={"resume": resume})
        chosen = chosen.model_copy(update={"checkpoint": checkpoint})
    # Libraries print to standard output, which is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        running = importlib.import_module("michelangelo.llm.finetune.running")
        plan = _plan(chosen, running) if dry_run else {}
    if dry_run:
        _print(plan, output_format, _plan_rows)
        return
    display = running.Display(is_on=not quiet, no_color=settings.load().no_color)
    try:
        with stopping(_STOPPING) as stop, contextlib.redirect_stdout(sys.stderr):
            report = running.finetune(chosen, display=display, should_stop=lambda: bool(stop))
    except KeyboardInterrupt:
        _say_what_is_saved(chosen, running)
        sys.exit(128 + signal.SIGINT)
    _print(report.to_dict(), output_format, _result_rows)
    if stop:
        _say_what_is_saved(chosen, running)
        sys.exit(128 + stop[0])


def _say_what_is_saved(config: Any, running: Any) -> None:
    saved = running.last_saved(config)
    if saved is None:
        click.echo("no checkpoint was saved: the same command begins anew", err=True)
    else:
        how = "the same command" if config.checkpoint.resume == "auto" else "the same command with --resume auto"
        click.echo(f"the last saved step is {saved[0]:,}, in {saved[1]}; {how} goes on from there", err=True)


def _plan(config: Any, running: Any) -> Mapping[str, Any]:
    """What is expected of the run: its memory on one GPU, also where this machine has none. Raises ModelError."""
    prediction = importlib.import_module("michelangelo.llm.finetune.prediction")
    device = running.device_of(config)
    named = {"device": prediction.device_name(device), "steps": config.training.max_steps or None}
    importlib.import_module("michelangelo.llm.finetune.model").read_shape(config.model)
    shape = prediction.shape_of(config)
    if shape is None:
        return {**named, "message": "the planner does not know this architecture"}
    setup = prediction.setup_of(config, device, num_gpus=config.parallel.num_workers)
    estimate = importlib.import_module("michelangelo.llm.planner.memory").estimate(shape, setup)
    return {
        **named,
        "gpus": setup.num_gpus,
        "tokens_per_step": setup.tokens_per_step,
        "allocated_bytes": estimate.allocated,
        "peak_bytes": estimate.peak,
        "low_bytes": estimate.low,
        "high_bytes": estimate.high,
        "components": {part.name: part.bytes for part in estimate.gpu},
        "setup": setup.to_dict(),
    }


def _print(result: Mapping[str, Any], output_format: _Format, rows: Any) -> None:
    if output_format == "table":
        shown = list(rows(result))
        width = max(len(title) for title, _ in shown)
        for title, text in shown:
            click.echo(f"{title:<{width}}   {text}")
    else:
        output.print_data(dict(result), output_format)


def _result_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "outcome", f"{report['outcome']}: {report['message']}"
    yield "steps", f"{report['step']:,}"
    yield "loss", _number("loss", report["loss"])
    if report["validation_loss"] is not None:
        yield "validation loss", _number("loss", report["validation_loss"])
    yield "tokens", f"{report['num_tokens']:,} ({report['num_trained_tokens']:,} trained on)"
    trained, parameters = report["num_trained_parameters"], report["num_parameters"]
    yield "parameters", f"{trained:,} trained of {parameters:,} ({trained / max(parameters, 1):.2%})"
    for name, title in _TITLES.items():
        if report[name] is not None:
            yield title, _number(name, report[name]) + _planned(name, report)
    yield "device", report["device"]
    for alert in report["alerts"][:_MAX_ALERTS]:
        yield "alert", alert
    if (more := len(report["alerts"]) - _MAX_ALERTS) > 0:
        yield "", f"{more} more alerts are in the events file"
    yield "output", report["output"]


def _plan_rows(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "device", plan["device"]
    if "message" in plan:
        yield "plan", plan["message"]
        return
    yield "steps", "by epochs" if plan["steps"] is None else f"{plan['steps']:,}"
    yield "tokens per step", f"{plan['tokens_per_step']:,}"
    low, high = _number("_bytes", plan["low_bytes"]), _number("_bytes", plan["high_bytes"])
    yield "memory per GPU", f"{_number('_bytes', plan['peak_bytes'])} ({low} to {high})"
    for name, size in plan["components"].items():
        yield f"  {name.replace('_', ' ')}", _number("_bytes", size)


def _planned(name: str, report: Mapping[str, Any]) -> str:
    """The plan beside what was measured, and by how much it was wrong."""
    planned, measured = report["plan"].get(_PLANNED.get(name, "")), report[name]
    if not isinstance(planned, int | float) or not planned or not measured:
        return ""
    return f" (planned {_number(name, planned)}, {planned / measured - 1.0:+.1%})"


def _number(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool | str):
        return str(value)
    if name.endswith("_bytes"):
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    if name == "mfu":
        return f"{value:.1%}"
    return f"{value:.4f}" if name == "loss" else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
