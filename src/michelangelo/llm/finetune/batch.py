"""What goes through the model at once: token sequences side by side, each row filled with one or several documents.

It holds tensors only; `data` makes them, the trainer moves and consumes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from michelangelo.llm.finetune.documents import Documents, documents_of

__all__ = ["IGNORED", "Batch", "Batches", "PreferenceBatch"]

IGNORED: Final = -100
"""The label of a position that has no loss."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of S tokens. Labels are not shifted: position t predicts labels[t + 1], within its document."""

    input_ids: torch.Tensor
    """[B, S] int64."""
    labels: torch.Tensor
    """[B, S] int64, IGNORED where there is no loss; the first token of every document is IGNORED."""
    position_ids: torch.Tensor
    """[B, S] int64; from 0 in every document."""
    document_ids: torch.Tensor
    """[B, S] int32; 0, 1, … within a row, -1 for padding. Tokens attend within their document only."""
    num_trained: int
    """Labels that are not IGNORED."""
    documents: Documents | None = None
    """Where documents begin, on the device; made by `to`."""

    @property
    def num_tokens(self) -> int:
        """Positions, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device) -> Batch:
        """On a device, without waiting for the copy where the memory is pinned. The batch itself is on the host."""
        return dataclasses.replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            documents=documents_of(self.document_ids, device),
        )


@dataclass(frozen=True, slots=True)
class PreferenceBatch:
    """Pairs: row i of `chosen` and row i of `rejected` answer the same prompt. One document per row, padded."""

    chosen: Batch
    rejected: Batch
    reference: torch.Tensor | None = None
    """[2, pairs] float32: what the reference says of chosen and rejected answers, in nats; None: it is to be asked."""

    @property
    def num_tokens(self) -> int:
        return self.chosen.num_tokens + self.rejected.num_tokens

    @property
    def num_trained(self) -> int:
        return self.chosen.num_trained + self.rejected.num_trained

    def to(self, device: torch.device) -> PreferenceBatch:
        reference = None if self.reference is None else self.reference.to(device, non_blocking=True)
        return PreferenceBatch(self.chosen.to(device), self.rejected.to(device), reference)


class Batches(Protocol):
    """A stream of batches that knows where it is: after `restore(state())` the same batches follow, on any number of
    processes (the position is of the whole stream; each process takes its share)."""

    def next(self) -> Batch | PreferenceBatch | None:
        """The next batch of this process; None at the end of the data."""
        ...

    def next_epoch(self) -> None:
        """Begin the next pass over the data, in another order; after `next` gave None."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Where the stream is, as JSON; small, and the same on every process."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def num_batches(self) -> int | None:
        """Batches of this process in one pass over the data; None where that cannot be known beforehand."""
        ...
