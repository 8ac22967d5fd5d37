"""Running one experiment: the prediction is on disk before anything is measured, the report is there afterwards."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.bench import experiments, plotting, reporting
from michelangelo.llm.bench.experiment import Deadline, Outcome, Task

__all__ = ["PLOT", "PREDICTIONS", "REPORT", "SCHEMA", "perform"]

PREDICTIONS: Final = "predictions.json"
REPORT: Final = "report.json"
PLOT: Final = "plot"
"""With .svg and .png."""
SCHEMA: Final = 1
"""Of the files; a change of a field's meaning is another number."""


def perform(name: str, task: Task) -> Mapping[str, Any]:
    """Predicts, writes `predictions.json`, measures, and writes the report (JSON, Markdown, plot) into the folder.

    Returns the report. Raises SettingsError for an unknown experiment or a folder that cannot be written, ModelError.
    """
    experiment = experiments.load(name)
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "experiment": name,
        "question": experiments.ALL[name].question,
        "claim": experiment.CLAIM,
        "task": task.to_dict(),
    }
    predicted = experiment.predict(task)
    head["predicted_at"] = _now()
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
        (task.folder / REPORT).unlink(missing_ok=True)
        _write(task.folder / PREDICTIONS, {**head, "quantities": [q.to_dict() for q in predicted]})
    except OSError as e:
        raise errors.SettingsError(f"output {task.folder}: cannot be written: {e.strerror}") from e
    began = time.monotonic()
    outcome = experiment.measure(task, predicted, Deadline.after(60.0 * task.minutes))
    report = {**head, "measured_at": _now(), "seconds": round(time.monotonic() - began, 1), **_outcome(outcome)}
    plotting.write(outcome.series, task.folder / PLOT, title=report["question"])
    (task.folder / "report.md").write_text(reporting.markdown(report), encoding="utf-8")
    _write(task.folder / REPORT, report)
    return report


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "quantities": [quantity.to_dict() for quantity in outcome.quantities],
        "series": [asdict(series) for series in outcome.series],
        "conclusions": list(outcome.conclusions),
        "left_out": list(outcome.left_out),
        "measurements": list(outcome.measurements),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Whole or not at all, and on the disk when it returns."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
