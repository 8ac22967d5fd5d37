"""The training that a search runs by default. Apart from `trial`, so that a worker whose trial trains something else
does not spend seconds on importing torch and Transformers."""

from __future__ import annotations

from collections.abc import Sequence

from michelangelo.llm.finetune import running
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.recording import Sink

__all__ = ["finetune"]


def finetune(config: FinetuneConfig, sinks: Sequence[Sink]) -> None:
    """A whole run."""
    running.finetune(config, sinks=sinks)
