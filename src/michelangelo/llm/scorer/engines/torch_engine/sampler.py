"""Logits → tokens, for all rows of a step at once, and log-probabilities for those who asked.

A row that samples brings one uniform number, drawn from its own generator: which token comes depends on that row alone,
however many others there are. It keeps no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["Draw", "alternatives", "choose"]


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row samples. temperature > 0; top_k 0: all; top_p 1: all. uniform: in [0, 1)."""

    row: int
    temperature: float
    top_p: float
    top_k: int
    uniform: float


def choose(logits: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    """A token per row of `logits` [row, vocabulary]: the likeliest, or what is drawn where a Draw names the row.

    Softmax at the temperature; then the `top_k` likeliest; of these the fewest with at least `top_p` together (Holtzman
    et al. 2020, arXiv 1904.09751); then the token at which their cumulative probability passes `uniform`.
    """
    chosen: list[int] = logits.argmax(-1).tolist()
    if not draws:
        return chosen
    device = logits.device
    rows = torch.tensor([draw.row for draw in draws], device=device)
    temperatures = torch.tensor([draw.temperature for draw in draws], device=device)
    top_p = torch.tensor([draw.top_p for draw in draws], device=device, dtype=torch.float64)
    vocabulary = logits.shape[-1]
    top_k = torch.tensor([draw.top_k or vocabulary for draw in draws], device=device)
    uniforms = torch.tensor([draw.uniform for draw in draws], device=device, dtype=torch.float64)
    scaled = logits.index_select(0, rows).float() / temperatures[:, None]
    # A top_k that all rows have makes the sort short; ties are broken by the smaller token, as in argmax.
    if all(draw.top_k for draw in draws):
        ordered, tokens = scaled.topk(min(vocabulary, max(draw.top_k for draw in draws)), dim=-1)
    else:
        ordered, tokens = scaled.sort(dim=-1, descending=True, stable=True)
    places = torch.arange(ordered.shape[-1], device=device)
    kept = torch.softmax(ordered.double().masked_fill(places >= top_k[:, None], -torch.inf), dim=-1)
    before = kept.cumsum(-1) - kept
    kept = kept.masked_fill((before >= top_p[:, None]) & (places > 0), 0.0)
    cumulative = kept.cumsum(-1)
    targets = uniforms * cumulative[:, -1]
    number = torch.searchsorted(cumulative, targets[:, None], right=True)
    number = torch.minimum(number, (kept > 0).sum(-1, keepdim=True) - 1)
    for draw, token in zip(draws, tokens.gather(-1, number)[:, 0].tolist(), strict=True):
        chosen[draw.row] = token
    return chosen


def alternatives(logits: torch.Tensor, tokens: Sequence[int], most: int) -> list[tuple[float, list[int], list[float]]]:
    """For each row of `logits` [row, vocabulary] the log-probability of its token, and the `most` likeliest tokens."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    picked = logprobs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    if not most:
        return [(value, [], []) for value in picked]
    values, places = logprobs.topk(min(most, logits.shape[-1]), dim=-1)
    return list(zip(picked, places.tolist(), values.tolist(), strict=True))
