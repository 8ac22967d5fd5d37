"""What the run leaves: metrics, curves, samples, the models, and one page that shows it all and needs nothing else.

metrics.json has what the same parameters give again; how long it took, and where, is in lineage.json. The page
itself is built in page.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import evaluate
import model
import page
from evaluate import Evaluation, Gain

from michelangelo import uniflow

__all__ = ["Report", "Story", "verdict", "write"]

PACKAGES: Final = ("torch", "transformers", "peft", "tokenizers", "ray", "pyarrow", "michelangelo-oss")
COMPARISONS: Final = (
    ("trained", "unigram", "text"),
    ("trained", "untrained", "text"),
    ("LoRA", "trained", "answers"),
    ("LoRA", "trained", "text"),
)
"""Which model should be better than which, on what."""


@dataclass
class Story:
    """Everything that the steps before found out."""

    parameters: dict[str, Any]
    statistics: dict[str, dict[str, float]]
    vocabulary: int
    bytes_per_token: float
    weights: int
    lora_weights: int
    digests: dict[str, str]
    training: model.Curve
    tuning: model.Curve
    evaluations: list[Evaluation]
    model: uniflow.Directory
    adapter: uniflow.Directory
    tokenizer: uniflow.File


@dataclass
class Report:
    """The result of the pipeline; `folder` has report.html, metrics.json, lineage.json, samples.json, loss.png,
    loss.svg and the models."""

    evaluations: list[Evaluation]
    gains: list[Gain]
    verdicts: list[str]
    model_digest: str
    tokens_per_second: float
    folder: uniflow.Directory


def write(story: Story, samples: list[dict[str, Any]], folder: Path, seed: int) -> Report:
    """Compare the models and write the folder, which must not be there yet."""
    folder.mkdir()
    by_name = {(one.name, one.subject): one for one in story.evaluations}
    gains = [
        evaluate.compare(by_name[better, subject], by_name[worse, subject], seed)
        for better, worse, subject in COMPARISONS
    ]
    verdicts = [verdict(gain) for gain in gains]
    metrics, lineage = _metrics(story, gains, verdicts), _lineage(story)
    for name, content in (("metrics", metrics), ("lineage", lineage), ("samples", samples)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    shutil.copytree(story.model.path, folder / "model")
    shutil.copytree(story.adapter.path, folder / "adapter")
    shutil.copyfile(story.tokenizer.path, folder / "tokenizer.json")
    _draw(story, by_name, folder)
    curves = (folder / "loss.svg").read_text()
    (folder / "report.html").write_text(page.render(metrics, lineage, samples, curves))
    digest, speed = story.digests["model"], story.training.tokens_per_second
    return Report(story.evaluations, gains, verdicts, digest, speed, uniflow.Directory(folder))


def verdict(gain: Gain) -> str:
    """A comparison in words, good or bad."""
    on = "held-out text" if gain.subject == "text" else "held-out answers"
    amount = f"{abs(gain.nats):.3f} nats per token (95 %: {gain.low:+.3f} to {gain.high:+.3f})"
    if gain.holds:
        return f"On {on}, {gain.better} beats {gain.worse} by {amount}."
    if gain.high < 0:
        return f"On {on}, {gain.better} is worse than {gain.worse} by {amount}."
    return f"On {on}, {gain.better} does not differ from {gain.worse} beyond chance: by {amount}."


def _metrics(story: Story, gains: list[Gain], verdicts: list[str]) -> dict[str, Any]:
    def shown(one: Evaluation) -> dict[str, Any]:
        return {key: value for key, value in vars(one).items() if key not in ("losses", "counts")}

    return {
        "parameters": story.parameters,
        "data": story.statistics,
        "vocabulary": story.vocabulary,
        "bytesPerToken": story.bytes_per_token,
        "weights": story.weights,
        "loraWeights": story.lora_weights,
        "evaluations": [shown(one) for one in story.evaluations],
        "gains": [dataclasses.asdict(one) for one in gains],
        "verdicts": verdicts,
        "bestStep": story.training.best_step,
        "trainingTokens": story.training.tokens,
        "curves": {
            "training": [dataclasses.asdict(one) for one in story.training.points],
            "tuning": [dataclasses.asdict(one) for one in story.tuning.points],
        },
        "digests": story.digests,
    }


def _lineage(story: Story) -> dict[str, Any]:
    """Where this came from: what a second run may have different."""
    context = uniflow.task_context.current()
    return {
        "run": context.run_name if context else "",
        "project": context.project if context else "",
        "digests": story.digests,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "training": {"seconds": story.training.seconds, "tokensPerSecond": story.training.tokens_per_second},
        "tuning": {"seconds": story.tuning.seconds, "tokensPerSecond": story.tuning.tokens_per_second},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _draw(story: Story, by_name: dict[tuple[str, str], Evaluation], folder: Path) -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink = page.INK
    style: dict[Any, Any] = {
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
    }
    # No date and no random identifiers: the same curves are the same bytes.
    with mpl.rc_context({"svg.hashsalt": "tiny_llm", "svg.fonttype": "none", "font.size": 10, **style}):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        _curve(left, story.training, "Pre-training", "step")
        unigram = by_name["unigram", "text"].loss
        left.axhline(unigram, color="#8a8f98", linestyle=":", linewidth=1.5, label="unigram, on test")
        left.plot(
            [story.training.points[-1].step],
            [by_name["trained", "text"].loss],
            "D",
            color="#2f9e6e",
            label="trained, on test",
        )
        _curve(right, story.tuning, "LoRA on questions", "step")
        for axes in (left, right):
            axes.set_ylabel("nats per token")
            axes.legend(frameon=False)
            axes.grid(color="#8a8f98", alpha=0.25, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / "loss.png", dpi=130, facecolor="white", metadata={"Software": None})
        figure.savefig(folder / "loss.svg", transparent=True, metadata={"Date": None})


def _curve(axes: Any, curve: model.Curve, title: str, unit: str) -> None:
    steps = [one.step for one in curve.points]
    axes.plot(steps, [one.train_loss for one in curve.points], color="#3b7dd8", linewidth=2, label="train")
    axes.plot(steps, [one.validation_loss for one in curve.points], color="#e8833a", linewidth=2, label="validation")
    axes.axvline(curve.best_step, color="#8a8f98", linewidth=0.8, linestyle="--")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(unit)
