"""Attention of many sequences that lie one after the other in one row, over keys and values in blocks.

Decoding is done for all sequences at once, block by block: one product of each query with each block it sees, then a
softmax over the blocks of each sequence. Nothing is padded, and where the blocks lie close together nothing is copied.
Prompts are few in a step and long: one call for each. On a GPU in half precision FlashAttention reads the blocks
itself, in one call for all. It writes what the step's tokens add to the cache first, so that a sequence may read blocks
that another one fills in the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import torch
from torch.nn import functional

from michelangelo.llm.scorer.engines.torch_engine.paged_cache import PagedCache

__all__ = ["Pages", "PagedAttention", "Part", "Step"]

_DENSE: Final = 0.6
"""Blocks are read in place, without a copy, if so much of the range they span is wanted."""
_LEAST: Final = -1e30
"""For the largest score of nothing: finite, so that no difference of two is NaN."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens start … stop - 1 of a sequence; blocks: of its tokens 0 … stop - 1, and perhaps more."""

    start: int
    stop: int
    blocks: Sequence[int]


@dataclass(frozen=True, slots=True)
class Pages:
    """A step as FlashAttention wants it. Tensors of int32; `table` is filled up with block 0."""

    starts: torch.Tensor
    """[sequences + 1]: where each begins in the row."""
    ends: torch.Tensor
    """[sequences + 1]: 0 and the sums of lengths. The kernel asks for it and takes `lengths`."""
    lengths: torch.Tensor
    """[sequences]: tokens in the cache, those of the step included."""
    table: torch.Tensor
    """[sequences, blocks]"""
    longest_query: int
    longest_key: int


@dataclass(slots=True)
class Step:
    """One step's tokens: first `num_single` sequences of one token each, then those of `longer`, without gaps."""

    blocks: torch.Tensor
    """[token]: the block each is written to, and its place there:"""
    offsets: torch.Tensor
    singles: tuple[Part, ...] = ()
    longer: tuple[Part, ...] = ()
    pages: Pages | None = None
    rows: dict[int, torch.Tensor] = field(default_factory=dict)
    """By number of heads."""
    plans: dict[int | None, _Plan] = field(default_factory=dict)
    """By window."""
    masks: dict[tuple[int, int | None], torch.Tensor] = field(default_factory=dict)
    """By number in `longer`, and window."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which blocks the single tokens see: pairs of a block and a query."""

    blocks: torch.Tensor | slice
    owners: torch.Tensor
    """[pair]: number of the query; that of no query (their number) for a block in between that nobody wants."""
    mask: torch.Tensor
    """[pair, 1, 1, token]: 0 or -inf."""
    table: torch.Tensor
    """[query, most pairs]: its pairs, filled up with the number of pairs."""


class PagedAttention:
    """The attention function of one engine's model. `step` must be set before the model runs.

    flash: what reads pages, called as `torch.nn.attention.varlen.varlen_attn` (None: that itself).

    Called as Transformers calls one: query [1, heads, tokens, size], key and value [1, key heads, tokens, size] → [1,
    tokens, heads, value size].
    """

    def __init__(self, cache: PagedCache, device: torch.device, flash: Callable[..., Any] | None = None) -> None:
        self._flash: Final = flash
        self._cache: Final = cache
        self._device: Final = device
        self.step: Step | None = None

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        step = self.step
        if step is None:
            raise ValueError("the attention of an engine is called outside of its steps")
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        shape = self._cache.layers[layer]
        call = _Call(
            scale=scaling if scaling is not None else float(query.shape[-1]) ** -0.5,
            window=shape.window,
            softcap=options.get("softcap"),
            sinks=options.get("s_aux"),
        )
        if (rows := step.rows.get(shape.num_heads)) is None:
            rows = step.rows[shape.num_heads] = self._cache.rows(step.blocks, step.offsets, shape.num_heads)
        self._cache.write(layer, rows, key[0].transpose(0, 1), value[0].transpose(0, 1))
        queries = query[0].transpose(0, 1)
        if step.pages is not None and call.is_plain:
            return self._read_pages(layer, queries, step.pages, call)[None], None
        if not step.longer:
            return self._singles(layer, queries, step, call)[None], None
        num_singles = len(step.singles)
        found = []
        if num_singles:
            found.append(self._singles(layer, queries[:num_singles], step, call))
        found.extend(self._longer(layer, query, key, value, step, call))
        return torch.cat(found)[None], None

    def _read_pages(self, layer: int, queries: torch.Tensor, pages: Pages, call: _Call) -> torch.Tensor:
        from torch.nn.attention import varlen

        keys, values = self._cache.keys[layer], self._cache.values[layer]
        made = (self._flash or varlen.varlen_attn)(
            queries,
            keys,
            values,
            pages.starts,
            pages.ends,
            pages.longest_query,
            pages.longest_key,
            scale=call.scale,
            window_size=(-1 if call.window is None else call.window - 1, 0),
            enable_gqa=queries.shape[1] != keys.shape[2],
            seqused_k=pages.lengths,
            block_table=pages.table,
        )
        return cast(torch.Tensor, made)

    def _singles(self, layer: int, queries: torch.Tensor, step: Step, call: _Call) -> torch.Tensor:
        """queries: [query, head, size] → the same of the values' size."""
        shape = self._cache.layers[layer]
        if (plan := step.plans.get(call.window)) is None:
            plan = step.plans[call.window] = self._plan(step.singles, call.window)
        keys, values = self._blocks(layer, plan.blocks)
        count = queries.shape[0]
        grouped = (
            functional.pad(queries * call.scale, (0, 0, 0, 0, 0, 1)) if _has_nobody(plan) else queries * call.scale
        )
        grouped = grouped.reshape(-1, shape.num_heads, queries.shape[1] // shape.num_heads, shape.key_size)
        scores = torch.matmul(grouped.index_select(0, plan.owners), keys.transpose(-1, -2)).float()
        if call.softcap is not None:
            scores = torch.tanh(scores / call.softcap) * call.softcap
        scores += plan.mask
        highest = functional.pad(scores.amax(-1).clamp_(min=_LEAST), (0, 0, 0, 0, 0, 1), value=_LEAST)
        largest = highest.index_select(0, plan.table.view(-1)).view(*plan.table.shape, *highest.shape[1:]).amax(1)
        sinks = None
        if call.sinks is not None:
            sinks = call.sinks.float().view(1, shape.num_heads, -1)
            largest = torch.maximum(largest, sinks)
        largest = functional.pad(largest, (0, 0, 0, 0, 0, 1))  # of nobody, whose scores are all -inf
        scores -= largest.index_select(0, plan.owners)[..., None]
        scores.exp_()
        total = torch.zeros_like(largest).index_add_(0, plan.owners, scores.sum(-1))[:count]
        if sinks is not None:
            total += torch.exp(sinks - largest[:count])
        product = torch.matmul(scores.to(values.dtype), values)
        made = product.new_zeros(count + 1, *product.shape[1:], dtype=torch.float32)
        made.index_add_(0, plan.owners, product.float())
        made = made[:count] / total[..., None]
        return made.to(queries.dtype).reshape(count, queries.shape[1], shape.value_size)

    def _blocks(self, layer: int, blocks: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        if isinstance(blocks, slice):
            keys, values = keys[blocks], values[blocks]
        else:
            keys, values = keys.index_select(0, blocks), values.index_select(0, blocks)
        if self._cache.is_token_major:
            return keys.transpose(1, 2), values.transpose(1, 2)
        return keys, values

    def _longer(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, step: Step, call: _Call
    ) -> list[torch.Tensor]:
        """[token, head, size] for each."""
        found = []
        place = len(step.singles)
        size = self._cache.block_tokens
        for number, part in enumerate(step.longer):
            rows = slice(place, place + part.stop - part.start)
            place = rows.stop
            queries, first = query[:, :, rows], 0
            if part.start == 0:
                keys, values = key[:, :, rows], value[:, :, rows]
            else:
                first = max(0, part.start + 1 - call.window) // size if call.window else 0
                wanted = torch.as_tensor(part.blocks[first : -(-part.stop // size)], device=self._device)
                keys, values = (
                    pool.transpose(0, 1).reshape(1, pool.shape[1], -1, pool.shape[-1])[:, :, : part.stop - first * size]
                    for pool in self._blocks(layer, wanted)
                )
            is_causal = part.start == 0 and (call.window is None or part.stop <= call.window)
            mask = None if is_causal and call.is_plain else self._mask(step, number, part, first * size, call.window)
            found.append(_attend(queries, keys, values, mask, call)[0].transpose(0, 1))
        return found

    def _mask(self, step: Step, number: int, part: Part, first: int, window: int | None) -> torch.Tensor:
        """[1, query, key] of bool; keys are those of positions first … stop - 1."""
        if (made := step.masks.get((number, window))) is None:
            positions = torch.arange(first, part.stop, device=self._device)
            distance = torch.arange(part.start, part.stop, device=self._device)[:, None] - positions
            made = distance >= 0
            if window is not None:
                made &= distance < window
            made = step.masks[number, window] = made[None]
        return made

    def _plan(self, parts: Sequence[Part], window: int | None) -> _Plan:
        size = self._cache.block_tokens
        lengths = np.array([part.stop for part in parts])
        begins = np.maximum(lengths - window, 0) if window is not None else np.zeros_like(lengths)
        first, last = begins // size, (lengths + size - 1) // size
        counts = last - first
        blocks = np.concatenate([part.blocks[a:b] for part, a, b in zip(parts, first, last, strict=True)])
        owners = np.repeat(np.arange(len(parts)), counts)
        ends = np.cumsum(counts)
        starts = ends - counts
        places = np.arange(len(blocks)) - np.repeat(starts, counts)
        """Of the block within its sequence's."""
        positions = ((places + np.repeat(first, counts)) * size)[:, None] + np.arange(size)
        hidden = positions >= lengths[owners][:, None]
        if window is not None:
            hidden |= positions < begins[owners][:, None]
        table = np.full((len(parts), int(counts.max())), len(blocks))
        table[owners, places] = np.arange(len(blocks))
        low, high = int(blocks.min()), int(blocks.max()) + 1
        mask = np.where(hidden, np.float32(-np.inf), np.float32(0))
        span: torch.Tensor | slice
        if len(blocks) >= _DENSE * (high - low) and len(set(blocks.tolist())) == len(blocks):
            place_of = blocks - low
            owners_of = np.full(high - low, len(parts))
            owners_of[place_of] = owners
            masks = np.full((high - low, size), np.float32(-np.inf))
            masks[place_of] = mask
            numbers = np.append(place_of, high - low)
            table, owners, mask, span = numbers[table], owners_of, masks, slice(low, high)
        else:
            span = torch.as_tensor(blocks, device=self._device)
        return _Plan(
            blocks=span,
            owners=torch.as_tensor(owners, device=self._device),
            mask=torch.as_tensor(mask, device=self._device)[:, None, None, :],
            table=torch.as_tensor(table, device=self._device),
        )


@dataclass(frozen=True, slots=True)
class _Call:
    scale: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None

    @property
    def is_plain(self) -> bool:
        return self.softcap is None and self.sinks is None


def _has_nobody(plan: _Plan) -> bool:
    return isinstance(plan.blocks, slice)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, call: _Call
) -> torch.Tensor:
    """[1, head, token, size]; mask None: causal, of equally many queries and keys."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (
            states[:, :, None].expand(-1, -1, groups, -1, -1).reshape(1, query.shape[1], states.shape[2], -1)
            for states in (key, value)
        )
    if call.is_plain or mask is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=call.scale
        )
    scores = (torch.matmul(query, key.transpose(-1, -2)) * call.scale).float()
    if call.softcap is not None:
        scores = torch.tanh(scores / call.softcap) * call.softcap
    scores = scores.masked_fill(~mask, -torch.inf)
    if call.sinks is not None:
        column = call.sinks.float().view(1, -1, 1, 1).expand(-1, -1, scores.shape[2], -1)
        weights = torch.softmax(torch.cat([scores, column], dim=-1), dim=-1)[..., :-1]
    else:
        weights = torch.softmax(scores, dim=-1)
    return torch.matmul(weights.to(value.dtype), value)
