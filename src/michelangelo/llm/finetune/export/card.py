"""The model card: README.md with the metadata that model hubs read, made of a run's configuration, events and report.

What is not known is left out; the licence and what the model is good for are for people to say, and the card says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import yaml

from michelangelo.llm.finetune import running
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.sinks import events_file

__all__ = ["write"]

_PLOT: Final = "loss.svg"
_PACKAGES: Final = ("michelangelo-oss", "torch", "transformers", "peft")


def write(run: Path, folder: Path, config: FinetuneConfig, *, step: int, kind: str) -> None:
    """Into `folder`. Raises OSError."""
    path = run / running.EVENTS
    events = events_file.read(path) if path.is_file() else []
    steps = [event for event in events if event["event"] == "Stepped" and event["step"] <= step]
    evaluations = [event for event in events if event["event"] == "Evaluated" and event["step"] <= step]
    report = _report(run)
    has_plot = bool(steps) and _plot(folder / _PLOT, steps, evaluations)
    lines = [
        "---",
        yaml.safe_dump(_front_matter(config, kind), sort_keys=False).rstrip(),
        "---",
        f"# {folder.name if not folder.name.startswith('.') else Path(config.output).name}",
        "",
        _summary(config, kind, step),
        "",
        "## How it was trained",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _rows(config, report, steps, evaluations)),
        "",
        *([f"![Loss by step]({_PLOT})", ""] if has_plot else []),
        "## Before you use it",
        "",
        "Licence, intended use and limits are for its owner to say; nothing in this card was judged by a person. "
        "The loss above is over the run's own data; it says nothing about other text, and nothing about safety.",
        "",
        "## Made with",
        "",
        ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES) + ".",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _front_matter(config: FinetuneConfig, kind: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "library_name": "peft" if kind == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["michelangelo", config.objective, config.adapter.method],
    }
    if not config.model.from_scratch:
        made["base_model"] = config.model.path
    return made


def _summary(config: FinetuneConfig, kind: str, step: int) -> str:
    what = {"full": "All weights", "merged": "Adapters, merged into the weights", "adapter": "Adapters only"}[kind]
    start = "random weights of the shape of" if config.model.from_scratch else "the model"
    objective = {"pretrain": "the next token of text", "sft": "completions", "dpo": "preferences (DPO)"}[
        config.objective
    ]
    return f"{what}, trained on {objective} from {start} `{config.model.path}`, as they were after step {step:,}."


def _rows(
    config: FinetuneConfig, report: Mapping[str, Any], steps: list[dict[str, Any]], evaluations: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    yield "data", ", ".join(f"`{source.path}`" for source in config.data.train)
    method = config.adapter.method
    yield (
        "method",
        method if method == "full" else f"{method}, rank {config.adapter.rank}, alpha {config.adapter.alpha:g}",
    )
    optimizer, training = config.optimizer, config.training
    yield "optimizer", f"{optimizer.name}, learning rate {optimizer.learning_rate:g}, {optimizer.schedule}"
    yield (
        "batch",
        f"{training.micro_batch} × {config.data.sequence_length:,} tokens, "
        f"{training.gradient_accumulation} passes a step",
    )
    yield "precision", training.precision
    if steps:
        yield "steps", f"{steps[-1]['step']:,}"
        yield "training loss", f"{steps[0]['loss']:.4f} → {steps[-1]['loss']:.4f} nats per token"
    if evaluations:
        yield "validation loss", f"{evaluations[-1]['loss']:.4f} nats per token"
    if report:
        yield "tokens", f"{report['num_tokens']:,}"
        yield "hardware", str(report["device"])
        for key, title, form in (("tokens_per_second", "tokens/s", "{:,.0f}"), ("mfu", "MFU", "{:.1%}")):
            if report.get(key) is not None:
                yield title, form.format(report[key]) + _planned(report, key, form)
        yield "peak memory", f"{report['peak_memory_bytes'] / 2**30:.2f} GiB"


def _planned(report: Mapping[str, Any], key: str, form: str) -> str:
    planned = report.get("plan", {}).get(key)
    return f" (planned {form.format(planned)})" if isinstance(planned, int | float) else ""


def _report(run: Path) -> dict[str, Any]:
    path = run / running.REPORT
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _plot(path: Path, steps: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> bool:
    """False where matplotlib is not installed."""
    try:
        from matplotlib import figure
    except ImportError:
        return False
    drawn = figure.Figure(figsize=(7, 3.5), layout="constrained")
    axes = drawn.subplots()
    known = [(event["step"], event["loss"]) for event in steps if math.isfinite(event["loss"])]
    axes.plot([step for step, _ in known], [loss for _, loss in known], label="training", linewidth=1.2)
    if evaluations:
        axes.plot([e["step"] for e in evaluations], [e["loss"] for e in evaluations], "o-", label="validation")
        axes.legend(frameon=False)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path)
    return True
