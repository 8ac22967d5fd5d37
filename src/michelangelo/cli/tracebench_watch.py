"""`mactl tracebench watch`: one more look at an endpoint, or many, with an alarm that can be trusted however often."""

from __future__ import annotations

import datetime
import importlib
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from michelangelo.cli import options as shared
from michelangelo.cli import output, table, tracebench_options

__all__ = ["watch"]

_ALARM = 1


@click.command()
@click.argument("baseline")
@click.option("--engine", required=True, metavar="ENGINE", help="The endpoint: a YAML file with kind: …, or {kind: …}.")
@click.option("--state", type=click.Path(path_type=Path), help="The file of looks; watch-BASELINE.jsonl if left out.")
@click.option("--sample", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Cases per look.")
@click.option("--looks", type=click.IntRange(0), default=1, show_default=True, help="How many now; 0: until an alarm.")
@click.option("--every", type=shared.DURATION, default="10m", show_default=True, help="From one look to the next.")
@click.option("--alpha", type=shared.SHARE, default="5%", show_default=True, help="Risk of a false alarm, ever.")
@click.option("--tolerance", type=shared.SHARE, default="3%", show_default=True, help="The drop that is accepted.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cases that are drawn.")
@tracebench_options.engines
@tracebench_options.store
@shared.report_format()
@click.pass_context
def watch(ctx: click.Context, /, baseline: str, engine: str, store: Path, output_format: Any, **words: Any) -> None:
    """Ask a few cases of a recorded suite again, and exit with 1 when the endpoint got worse than the BASELINE.

    Call it as often as you like (by cron, or with --looks): all looks of one state file are one test, and its alarm is
    false with the probability --alpha at most, however many looks there are.

    \b
    Example:
      mactl tracebench watch main@3 --engine endpoint.yaml --sample 30
      mactl tracebench watch main@3 --engine endpoint.yaml --looks 0 --every 1h
    """
    watching = importlib.import_module("michelangelo.llm.tracebench.watching")
    recorder = importlib.import_module("michelangelo.llm.tracebench.recorder")
    recorded = importlib.import_module("michelangelo.llm.tracebench.store").read(store, baseline)
    judges = tracebench_options.opened_judges(words["judges"], words["embedder"])
    endpoint = tracebench_options.opened(engine)
    try:
        importlib.import_module("michelangelo.llm.tracebench.scoring").check_engines(recorded.suite, judges)
        plan = watching.Plan(
            baseline=recorded.header.digest,
            engine=endpoint.name,
            alpha=words["alpha"],
            tolerance=words["tolerance"],
            allowance=watching.allowance(recorded, words["alpha"], words["tolerance"]),
            sample=words["sample"],
            seed=words["seed"],
        )
        state = words["state"] or Path(f"watch-{recorded.header.name}-{recorded.header.version}.jsonl")
        settings = recorded.header.settings
        # The endpoint is asked as the baseline was: with its system prompt, template and sampling.
        chosen = recorder.Options(
            system=settings.get("system", ""),
            template=settings.get("template", ""),
            sampling=settings.get("sampling", {}),
            engines=judges,
        )
        with watching.opened(state, plan) as opened:
            _look(opened, (recorded, endpoint, chosen), words["looks"], words["every"])
            _show(opened, state, output_format)
            ctx.exit(_ALARM if opened.has_alarm else 0)
    finally:
        for one in (*judges.values(), endpoint):
            one.close()


def _look(opened: Any, asked: tuple[Any, Any, Any], looks: int, every_seconds: float) -> None:
    done, pause = 0, threading.Event()
    while not opened.has_alarm and (looks == 0 or done < looks):
        if done:
            pause.wait(every_seconds)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        look = opened.look(*asked, now)
        done += 1
        click.echo(f"look {look.number}: {look.passed} of {len(look.cases)} passed", err=True)


def _show(opened: Any, state: Path, output_format: Any) -> None:
    looks, plan = opened.looks, opened.plan
    if output_format != "table":
        document = {"alarm": opened.has_alarm, "plan": asdict(plan), "limit": plan.limit}
        output.print_data({**document, "looks": [asdict(look) for look in looks]}, output_format)
        return
    rows = [
        [
            str(k.number),
            k.at,
            f"{k.passed} of {len(k.cases)}",
            str(k.errors),
            f"{k.evidence:.3g}",
            "ALARM" if k.is_alarm else "",
        ]
        for k in looks[-10:]
    ]
    if rows:
        table.print_rows(["LOOK", "AT", "PASSED", "ERRORS", "EVIDENCE", "ALARM"], rows)
    accepted = 100 * plan.allowance
    if opened.has_alarm:
        click.echo(
            f"alarm: the pass rate is lower than the baseline's by more than {accepted:.1f} points (see {state})"
        )
    else:
        evidence = f"{looks[-1].evidence:.3g} of {plan.limit:g}" if looks else "none yet"
        click.echo(f"no alarm: evidence of a drop of more than {accepted:.1f} points is {evidence}")
