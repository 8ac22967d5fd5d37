"""One training run as a trial of Ray Tune: it reports losses on the way, and its failure as a result.

A failure that has a sentence (a rate at which training diverges, memory that does not suffice) is a finding of the
search and no crash: it is reported, and not tried again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.hpo import space
from michelangelo.llm.finetune.recording import Evaluated, Event, Sink, Started, Stepped
from michelangelo.llm.finetune.sinks import events_file
from michelangelo.llm.finetune.sinks.terminal import SmoothedLoss

__all__ = ["LossReporter", "Report", "Train", "TrialSetup", "has_validation", "run"]

Train: TypeAlias = Callable[[FinetuneConfig, Sequence[Sink]], object]
"""Trains, and hands its events to the sinks."""
_DONE: Final = "trial.json"
"""In the output folder of a trial that came to its end."""
Report: TypeAlias = Callable[[dict[str, Any]], None]
_REPORTS: Final = 20
"""Of the training loss in one trial, where there is no validation data."""


@dataclass(frozen=True, slots=True)
class TrialSetup:
    """What all trials of a search share."""

    config: FinetuneConfig
    folder: Path
    """Each trial has its output in `trials` in it."""
    working_folder: str
    """What relative paths of the configuration are relative to."""


class LossReporter:
    """A sink that reports the validation loss, or the smoothed training loss where there is no validation data."""

    name = "search"

    def __init__(self, report: Report, *, by_validation: bool) -> None:
        self._report = report
        self._by_validation = by_validation
        self._smoothed = SmoothedLoss()
        self._every = 1
        self.step = 0
        self.loss = math.nan
        self.is_empty = False
        """The validation data has nothing to compare by."""

    def receive(self, event: Event) -> None:
        if isinstance(event, Started):
            self._every = max(1, event.total_steps // _REPORTS)
        elif isinstance(event, Stepped):
            self.stepped(event.step, event.loss)
        elif isinstance(event, Evaluated):
            self.evaluated(event.step, event.loss, event.num_tokens)

    def stepped(self, step: int, loss: float) -> None:
        self.step = step
        smoothed = self._smoothed.add(loss)
        if not self._by_validation:
            self.loss = smoothed
            if step % self._every == 0:
                self._send()

    def evaluated(self, step: int, loss: float, num_tokens: int) -> None:
        if self._by_validation:
            self.loss, self.step = loss, step
            self.is_empty = num_tokens == 0
            self._send()

    def close(self) -> None:
        """The end is reported by `run`."""

    def _send(self) -> None:
        if math.isfinite(self.loss):
            self._report({"loss": self.loss, "step": self.step, "is_over": False, "message": ""})


def run(setup: TrialSetup, name: str, values: Mapping[str, Any], train: Train, report: Report) -> None:
    """Trains with these values, unless it was done before. The last report has `is_over`, and a `message` where the run
    failed."""
    os.chdir(setup.working_folder)
    done = setup.folder / "trials" / name / _DONE
    last = _done_before(done, values)
    if last is None:
        last = _train(setup, name, values, train, report)
        done.parent.mkdir(parents=True, exist_ok=True)
        beside = done.with_suffix(".unfinished")
        beside.write_text(json.dumps({"values": dict(values), "last": last}) + "\n", encoding="utf-8")
        beside.replace(done)
    # A scheduler compares numbers: what failed is worse than everything else.
    report({**last, "loss": math.inf if last["loss"] is None else last["loss"]})


def _train(setup: TrialSetup, name: str, values: Mapping[str, Any], train: Train, report: Report) -> dict[str, Any]:
    """The last report, with None for a loss that is no number."""
    by_validation = has_validation(setup.config)
    reporter = LossReporter(report, by_validation=by_validation)
    message = ""
    try:
        chosen = _configured(setup, name, values)
        train(chosen, [reporter])
        if not reporter.step:
            # With several workers the loop runs in other processes, which write what happens to a file.
            reporter = _from_file(Path(chosen.output) / events_file.FILE_NAME, by_validation=by_validation)
        if reporter.is_empty:
            message = "the validation data has no trained tokens: give more rows, or a larger data.validation_share"
        elif not math.isfinite(reporter.loss):
            message = "the run ended without a loss to compare by"
    except errors.MichelangeloError as e:
        message = e.message or type(e).__name__
    loss = reporter.loss if not message and math.isfinite(reporter.loss) else None
    return {"loss": loss, "step": reporter.step, "is_over": True, "message": message}


def _done_before(file: Path, values: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return dict(found["last"]) if found["values"] == dict(values) else None
    except (OSError, ValueError, KeyError, TypeError):
        # Not there, or torn: it is trained again, from its checkpoint where there is one.
        return None


def _from_file(file: Path, *, by_validation: bool) -> LossReporter:
    reporter = LossReporter(lambda found: None, by_validation=by_validation)
    for event in events_file.read(file):
        if event["event"] == "Stepped":
            reporter.stepped(event["step"], event["loss"])
        elif event["event"] == "Evaluated":
            reporter.evaluated(event["step"], event["loss"], event["num_tokens"])
    return reporter


def has_validation(config: FinetuneConfig) -> bool:
    return bool(config.data.validation) or config.data.validation_share > 0.0


def _configured(setup: TrialSetup, name: str, values: Mapping[str, Any]) -> FinetuneConfig:
    """An interrupted trial goes on from its own checkpoint."""
    trackers = [
        {**tracker.model_dump(mode="json"), "name": f"{tracker.name or setup.folder.name}-{name}"}
        for tracker in setup.config.trackers
    ]
    own = {
        "output": str(setup.folder / "trials" / name),
        "trackers": trackers,
        "checkpoint.folder": "",
        "checkpoint.resume": "auto",
    }
    return space.configured(setup.config, {**own, **values})
