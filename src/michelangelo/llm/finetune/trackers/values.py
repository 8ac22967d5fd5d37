"""Events as trackers take them: flat parameters and finite metrics, under the same names everywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from michelangelo.llm.finetune.recording import Evaluated, Saved, Started, Stepped
from michelangelo.llm.finetune.trackers.tracker_run import Scalar

__all__ = ["flatten", "metrics", "parameters"]

_STEP_FIELDS = (
    "loss",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "mfu",
    "memory_bytes",
    "seconds",
    "num_tokens",
    "epoch",
)


def parameters(event: Started) -> dict[str, Scalar]:
    """The configuration as `optimizer.learning_rate`, the model's sizes, and the plan as `plan.…`."""
    sizes = {"num_parameters": event.num_parameters, "num_trained_parameters": event.num_trained_parameters}
    return {**flatten(event.config), **sizes, "total_steps": event.total_steps, **flatten({"plan": event.plan})}


def metrics(event: Stepped | Evaluated | Saved) -> dict[str, float]:
    """`train/loss`, `evaluation/loss`, `checkpoint/num_bytes` …; what is not finite (an MFU that is not known) is left
    out, as not every tracker takes it."""
    if isinstance(event, Stepped):
        found = {f"train/{name}": getattr(event, name) for name in _STEP_FIELDS}
        found |= {f"train/{name}": value for name, value in event.metrics.items()}
    elif isinstance(event, Evaluated):
        found = {"evaluation/loss": event.loss, "evaluation/num_tokens": event.num_tokens}
        found |= {f"evaluation/{name}": value for name, value in event.metrics.items()}
    else:
        found = {"checkpoint/num_bytes": event.num_bytes, "checkpoint/seconds": event.seconds}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Leaves by their dotted paths; lists and what is nothing as JSON."""
    flat: dict[str, Scalar] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.")
        elif isinstance(value, bool | int | float | str):
            flat[path] = value
        else:
            flat[path] = json.dumps(value, default=str)
    return flat
