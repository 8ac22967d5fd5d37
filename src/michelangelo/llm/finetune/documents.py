"""Where documents begin in packed rows, in the forms that attention's kernels take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

__all__ = ["Documents", "document_mask", "documents_of"]

_BUCKET: Final = 64
"""Boundaries are padded to a multiple of this, so that compiled layers see few shapes."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Where documents begin in B rows of S tokens, laid end to end."""

    offsets: torch.Tensor | None
    """[N + 1] int32, from 0 to B * S, padded by repeating the end: for variable-length kernels, on a GPU only."""
    ids: torch.Tensor | None
    """[B, S] int32, -1 for padding. None: each row is one document."""

    def arguments(self) -> dict[str, Any]:
        """For the model's forward, which hands them on to attention."""
        return {"document_offsets": self.offsets, "document_ids": self.ids}


def documents_of(ids: torch.Tensor, device: torch.device) -> Documents:
    """ids: [B, S] int on the host, -1 for padding (which is one document of its own, at the end of a row)."""
    rows, length = ids.shape
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts[:, 1:] = ids[:, 1:] != ids[:, :-1]
    if bool(starts.sum() == rows):
        return Documents(None, None)
    moved = ids.to(device, non_blocking=True)
    if device.type != "cuda":
        return Documents(None, moved)
    begins = starts.flatten().nonzero().flatten().to(torch.int32)
    size = -(-(len(begins) + 1) // _BUCKET) * _BUCKET
    offsets = torch.full((size,), rows * length, dtype=torch.int32)
    offsets[: len(begins)] = begins
    return Documents(offsets.to(device, non_blocking=True), moved)


def document_mask(ids: torch.Tensor | None, length: int, window: int, device: torch.device) -> torch.Tensor:
    """[B or 1, 1, S, S] bool, True where a token looks: back within its document, at most `window` tokens (0: all)."""
    position = torch.arange(length, device=device)
    back = position[:, None] - position[None, :]
    seen = (back >= 0) & (back < window) if window else back >= 0
    if ids is None:
        return seen[None, None]
    return (seen & (ids[:, :, None] == ids[:, None, :]))[:, None]
