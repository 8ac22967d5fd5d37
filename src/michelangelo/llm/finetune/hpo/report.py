"""What a search found: a table, the best configuration to run, and a plot of the losses; as files and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import yaml

from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.hpo import plot, space

__all__ = ["FILES", "SearchReport", "Trial", "TrialState", "to_dict", "to_markdown", "write"]

TrialState: TypeAlias = Literal["Succeeded", "Halted", "Failed", "Pending"]
FILES: Final = ("report.json", "report.md", "best.yaml", "losses.svg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training run of a search."""

    name: str
    values: Mapping[str, Any]
    """By dotted path of the configuration."""
    state: TrialState
    """Halted: the scheduler gave up on it, as others were better after as many steps."""
    loss: float = math.nan
    """Nats per token, the last one; NaN where there is none."""
    step: int = 0
    seconds: float = 0.0
    message: str = ""
    """Why it failed."""
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """All trials, the best one first; those without a loss last."""

    metric: str
    """What the trials are compared by."""
    trials: tuple[Trial, ...]
    folder: str

    @property
    def best(self) -> Trial | None:
        """With the lowest loss among those that ran to their end; None where there is none."""
        return next((trial for trial in self.trials if trial.state == "Succeeded" and math.isfinite(trial.loss)), None)

    @classmethod
    def of(cls, trials: Sequence[Trial], *, metric: str, folder: Path) -> SearchReport:
        ordered = sorted(trials, key=lambda one: (one.loss if math.isfinite(one.loss) else math.inf, one.name))
        return cls(metric=metric, trials=tuple(ordered), folder=str(folder))


def write(report: SearchReport, config: FinetuneConfig, searched: space.Space) -> list[Path]:
    """The files of FILES into the search's folder; without a best trial there is no best.yaml, and without any loss no
    plot. Those that were written."""
    folder = Path(report.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    (folder / "report.json").write_text(json.dumps(to_dict(report), indent=2) + "\n", encoding="utf-8")
    if report.best is not None:
        (folder / "best.yaml").write_text(_best_yaml(report.best, config, folder), encoding="utf-8")
    rate = next((path for path, one in searched.items() if isinstance(one, space.LogUniform)), "")
    group = next((path for path, one in searched.items() if isinstance(one, space.Choice)), "")
    points = [
        plot.Point(float(trial.values[rate]), trial.loss, str(trial.values.get(group, "")))
        for trial in report.trials
        if rate in trial.values and math.isfinite(trial.loss)
    ]
    has_plot = bool(points)
    if has_plot:
        plot.write(points, folder / "losses.svg", across=rate, group=group, metric=report.metric)
    (folder / "report.md").write_text(to_markdown(report, has_plot=has_plot), encoding="utf-8")
    return [folder / name for name in FILES if (folder / name).exists()]


def to_dict(report: SearchReport) -> dict[str, Any]:
    """For JSON: losses that are no numbers are null."""
    trials = []
    for trial in report.trials:
        fields = dataclasses.asdict(trial)
        trials.append({**fields, "loss": trial.loss if math.isfinite(trial.loss) else None})
    best = report.best
    return {"metric": report.metric, "folder": report.folder, "best": best.name if best else None, "trials": trials}


def to_markdown(report: SearchReport, *, has_plot: bool) -> str:
    paths = list(dict.fromkeys(path for trial in report.trials for path in trial.values))
    counts = {
        state: sum(trial.state == state for trial in report.trials) for state in ("Succeeded", "Halted", "Failed")
    }
    lines = [
        "# Search",
        "",
        f"{len(report.trials)} trials, compared by the {report.metric}: "
        + ", ".join(f"{count} {state.lower()}" for state, count in counts.items())
        + ".",
        "",
    ]
    if report.best is None:
        lines += ["No trial came to its end with a loss, so there is no best configuration.", ""]
    else:
        said = ", ".join(f"`{path}: {_short(value)}`" for path, value in report.best.values.items())
        lines += [f"Best: {said}, loss {report.best.loss:.4f}. Run it with `mactl llm finetune best.yaml`.", ""]
    if has_plot:
        lines += ["![Losses of the trials](losses.svg)", ""]
    titles = ["trial", *paths, "loss", "steps", "seconds", "state", "message"]
    lines += [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for trial in report.trials:
        values = [_short(trial.values.get(path, "")) for path in paths]
        loss = f"{trial.loss:.4f}" if math.isfinite(trial.loss) else ""
        cells = [trial.name, *values, loss, trial.step, f"{trial.seconds:.1f}", trial.state, trial.message]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _best_yaml(best: Trial, config: FinetuneConfig, folder: Path) -> str:
    chosen = space.configured(config, {**best.values, "output": str(folder / "best")})
    # What is the default is left out: the file shows what was decided.
    document = chosen.model_dump(mode="json", exclude_defaults=True)
    for path, value in best.values.items():
        section = document
        *parents, last = path.split(".")
        for name in parents:
            section = section.setdefault(name, {})
        section[last] = value
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
