"""What is minimised: one protocol between the trainer and its losses (`causal_lm`, `preference`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from michelangelo.llm.finetune.batch import Batch, PreferenceBatch

__all__ = ["Objective"]


class Objective(Protocol):
    """Turns a batch into a loss, through the whole model at once."""

    def loss(self, batch: Batch | PreferenceBatch) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """The SUM over the batch's terms, float32 [], with gradients; and sums of metrics over the same terms, float32
        [], without. Terms are trained tokens, or pairs."""
        ...

    def count(self, batch: Batch | PreferenceBatch) -> int:
        """The number of terms in the batch; known without the device."""
        ...
