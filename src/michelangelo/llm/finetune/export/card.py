"""The model card: README.md with the metadata that model hubs read, made of a run's configuration, events and report.

What is not known is left out; the licence and what the model is good for are for people to say, and the card says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from michelangelo.llm.finetune.config import FinetuneConfig, SourceConfig
from michelangelo.llm.finetune.export import facts, loss_plot
from michelangelo.llm.finetune.export.facts import Facts

__all__ = ["Written", "base_model", "write"]

_PLOT: Final = "loss.svg"
_PACKAGES: Final = ("michelangelo-oss", "torch", "transformers", "peft")
_GIB: Final = 1 << 30
_HUB_NAME: Final = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_WHAT: Final = {"full": "All weights", "merged": "Adapters, merged into the weights", "adapter": "Adapters only"}
_OBJECTIVES: Final = {"pretrain": "the next token of text", "sft": "completions", "dpo": "preferences (DPO)"}


@dataclass(frozen=True, slots=True)
class Written:
    """What the card is about."""

    title: str
    kind: Literal["merged", "adapter", "full"]
    step: int


def write(run: Path, folder: Path, config: FinetuneConfig, written: Written) -> None:
    """README.md and the plot into `folder`. Raises OSError, LlmError."""
    known = facts.read(run, config, written.step)
    has_plot = loss_plot.write(folder / _PLOT, known.losses, known.validation)
    picture = [f"![Training and validation loss by step]({_PLOT})", ""] if has_plot else []
    lines = [
        "---",
        yaml.safe_dump(_front_matter(config, written), sort_keys=False).rstrip(),
        "# license: for the owner of the model to say",
        "---",
        "",
        f"# {written.title}",
        "",
        _summary(config, written),
        "",
        "## How it was trained",
        "",
        *_table(("", ""), _training_rows(config, known)),
        *picture,
        *_measured(known),
        "## Before you use it",
        "",
        *_limits(config, known),
        "",
        "## Made with",
        "",
        ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES) + ".",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def base_model(config: FinetuneConfig) -> str:
    """The name of the model it began with; a local one by its whole path."""
    path = Path(config.model.path)
    return str(path.resolve()) if path.is_dir() else config.model.path


def _front_matter(config: FinetuneConfig, written: Written) -> dict[str, Any]:
    """As the Hub checks it: names of models and data sets are those of the Hub, or none."""
    made: dict[str, Any] = {
        "library_name": "peft" if written.kind == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["michelangelo", config.objective, config.adapter.method],
    }
    if not config.model.from_scratch and _is_hub_name(config.model.path):
        made["base_model"] = config.model.path
        made["base_model_relation"] = "adapter" if written.kind == "adapter" else "finetune"
    sets = [one.path for one in config.data.train if one.format == "hf" and _is_hub_name(one.path)]
    if sets:
        made["datasets"] = sets
    return made


def _is_hub_name(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _summary(config: FinetuneConfig, written: Written) -> str:
    start = "random weights of the shape of" if config.model.from_scratch else "the model"
    return (
        f"{_WHAT[written.kind]}, trained on {_OBJECTIVES[config.objective]} from {start} `{config.model.path}`, "
        f"as they were after step {written.step:,}."
    )


def _training_rows(config: FinetuneConfig, known: Facts) -> Iterator[tuple[str, ...]]:
    optimizer, training, adapter = config.optimizer, config.training, config.adapter
    yield "data", _sources(config.data.train)
    if config.data.validation:
        yield "validation data", _sources(config.data.validation)
    elif config.data.validation_share:
        yield "validation data", f"{config.data.validation_share:.2%} of the rows, held out"
    if adapter.method == "full":
        yield "method", "full"
    else:
        targets = ", ".join(adapter.targets)
        yield "method", f"{adapter.method}, rank {adapter.rank}, alpha {adapter.alpha:g}, dropout {adapter.dropout:g}"
        yield "adapted", "every projection of attention and MLP" if targets == "all" else targets
    if known.num_parameters:
        share = known.num_trained / known.num_parameters
        yield "parameters", f"{known.num_parameters:,}, of them trained {known.num_trained:,} ({share:.2%})"
    rate = f"{optimizer.schedule}, {optimizer.warmup_steps:,} steps of warm-up"
    yield "optimizer", f"{optimizer.name}, weight decay {optimizer.weight_decay:g}"
    yield "learning rate", f"{optimizer.learning_rate:g}, {rate}"
    packing = ", packed" if config.data.packing else ""
    yield (
        "batch",
        f"{training.micro_batch} × {config.data.sequence_length:,} tokens{packing}, "
        f"{training.gradient_accumulation} passes a step, {known.num_workers} workers",
    )
    yield "precision", training.precision
    if config.objective == "dpo":
        yield "DPO beta", f"{config.preference.beta:g}"
    yield from _result_rows(known)


def _result_rows(known: Facts) -> Iterator[tuple[str, ...]]:
    if known.num_tokens:
        yield "tokens", f"{known.num_tokens:,} positions"
    if known.losses:
        yield "training loss", f"{known.losses[0][1]:.4f} → {known.losses[-1][1]:.4f} nats per token"
    if known.validation:
        last, best = known.validation[-1], min(known.validation, key=lambda found: found[1])
        yield "validation loss", f"{last[1]:.4f} nats per token (best: {best[1]:.4f} at step {best[0]:,})"


def _measured(known: Facts) -> list[str]:
    """What the run took, beside what was planned."""
    rows: list[tuple[str, ...]] = []
    if known.device:
        rows.append(("hardware", f"{known.num_workers} × {known.device}", ""))
    if known.hours:
        rows.append(("time in steps", _duration(known.hours), ""))
    plan = known.plan
    for title, value, form, names in (
        (
            "tokens/s",
            known.tokens_per_second,
            "{:,.0f}",
            ("tokens_per_second", "low_tokens_per_second", "high_tokens_per_second"),
        ),
        ("MFU", known.mfu, "{:.1%}", ("mfu", "", "")),
        (
            "peak memory, GiB",
            known.peak_memory_bytes / _GIB or math.nan,
            "{:.2f}",
            ("allocated_bytes", "low_bytes", "high_bytes"),
        ),
    ):
        if math.isfinite(value):
            scale = _GIB if names[0].endswith("bytes") else 1
            planned = [plan[name] / scale for name in names if isinstance(plan.get(name), int | float)]
            rows.append((title, form.format(value), _planned(value, planned, form)))
    if known.cost is not None:
        rows.append(("GPU hours", f"{known.cost.gpu_hours:,.2f}", ""))
        rows.append(("energy of the cards", f"at most {known.cost.energy_kwh:,.2f} kWh, at their power limit", ""))
        if known.cost.money is not None:
            money = f"about {known.cost.money:,.2f} {known.cost.currency} at a list price ({known.cost.price})"
            rows.append(("cost", money, ""))
    return ["## What it took", "", *_table(("", "measured", "planned"), rows)] if rows else []


def _planned(value: float, planned: list[float], form: str) -> str:
    """The prediction, its interval if there is one, and how far off it was."""
    if not planned or not planned[0]:
        return ""
    interval = f" ({form.format(planned[1])} … {form.format(planned[2])})" if len(planned) > 2 else ""
    return f"{form.format(planned[0])}{interval}, off by {planned[0] / value - 1:+.1%}"


def _limits(config: FinetuneConfig, known: Facts) -> Iterator[str]:
    yield (
        "Licence, intended use and limits are for its owner to say; nothing in this card was judged by a person. "
        "The losses above are over the run's own data: they say nothing about other text, and nothing about safety."
    )
    notes = []
    if not known.validation:
        notes.append("It was not evaluated on data that it was not trained on.")
    notes.append(f"It was trained on sequences of at most {config.data.sequence_length:,} tokens.")
    left_out = {name: known.data.get(name) for name in ("bad_rows", "num_truncated", "num_dropped", "num_untrained")}
    counted = [f"{name.removeprefix('num_').replace('_', ' ')}: {count:,}" for name, count in left_out.items() if count]
    if counted:
        notes.append(f"Rows that were not used whole ({', '.join(counted)}).")
    if known.alerts:
        kinds = ", ".join(f"{kind} ({count:,})" for kind, count in known.alerts.items())
        notes.append(f"The run raised alerts: {kinds}.")
    yield ""
    yield from (f"- {note}" for note in notes)


def _sources(sources: tuple[SourceConfig, ...]) -> str:
    weighted = len({source.weight for source in sources}) > 1
    return ", ".join(f"`{source.path}`" + (f" (weight {source.weight:g})" if weighted else "") for source in sources)


def _duration(hours: float) -> str:
    seconds = round(hours * 3600, 1)
    return f"{hours:,.2f} h" if hours >= 1 else f"{seconds / 60:,.1f} min" if seconds >= 60 else f"{seconds:g} s"


def _table(titles: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> list[str]:
    lines = [titles, ("---",) * len(titles), *rows]
    return [*("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines), ""]
