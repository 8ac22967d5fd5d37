"""Which experiments there are, by name. It loads the module of one when it is asked for, and nothing heavy before."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from michelangelo import errors
from michelangelo.llm.bench.experiment import Experiment

__all__ = ["ALL", "Entry", "load", "names"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An experiment before it is loaded."""

    module: str
    question: str
    model: str
    """Of the catalogue, unless another is asked for; empty: the experiment makes its own."""
    minutes: float
    """Its share of ten minutes on one GPU."""


ALL: Final[Mapping[str, Entry]] = {
    "attention": Entry("attention", "What does flash attention save against eager attention?", "llama-3.2-1b", 1.5),
    "offload": Entry("offload", "What does an optimizer in the host's memory save and cost?", "llama-3.2-3b", 2.0),
    "combined": Entry("combined", "How much larger is the batch with both?", "llama-3.2-3b", 1.5),
    "batch-sweep": Entry("batch_sweep", "From which batch on is a step bound by compute?", "llama-3.2-1b", 1.0),
    "adapters": Entry("adapters_quality", "Do LoRA and QLoRA reach full tuning?", "", 3.0),
    "batch-search": Entry("batch_search", "How near is the plan to the largest batch?", "llama-3.2-1b", 1.0),
}


def names() -> tuple[str, ...]:
    """In the order in which they are best run."""
    return tuple(ALL)


def load(name: str) -> Experiment:
    """Raises SettingsError that tells similar names."""
    if name not in ALL:
        near = difflib.get_close_matches(name, ALL, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise errors.SettingsError(f"experiment {name}: there is none of that name{hint} (there are: {', '.join(ALL)})")
    return cast(Experiment, importlib.import_module(f"michelangelo.llm.bench.{ALL[name].module}"))
