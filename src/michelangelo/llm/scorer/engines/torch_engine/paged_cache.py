"""The tensors behind the blocks: keys and values of every layer, and how large they may be.

A model's layers are asked for their shapes by running one token through it, so that no architecture's config has to be
understood. It decides nothing about who holds which block (`prefix`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers.cache_utils import Cache

from michelangelo import errors

__all__ = ["LayerShape", "PagedCache", "Passing", "num_blocks_of"]

_CPU_SHARE: Final = 0.25
_CPU_MOST: Final = 4 << 30
_CUDA_SHARE: Final = 0.85


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Of keys and values of one layer."""

    num_heads: int
    key_size: int
    value_size: int
    window: int | None
    """Positions that a query sees, its own included; None: all."""
    is_plain: bool = True
    """Softmax of scaled products: no cap on scores, no sinks."""

    @property
    def elements_per_token(self) -> int:
        return self.num_heads * (self.key_size + self.value_size)


class Passing(Cache):
    """What the model takes for its cache: it holds nothing, as keys and values are stored where attention is done."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class PagedCache:
    """Blocks 0 … num_blocks of each layer; block 0 is nobody's: rows that only fill up a step are written there.

    On a CPU [block, head, token, size]: products over blocks read keys in a row. For FlashAttention's pages
    (`is_token_major`) [block, token, head, size].
    """

    def __init__(
        self,
        layers: Sequence[LayerShape],
        num_blocks: int,
        block_tokens: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        is_token_major: bool = False,
    ) -> None:
        self.layers: Final = tuple(layers)
        self.num_blocks: Final = num_blocks
        self.block_tokens: Final = block_tokens
        self.is_token_major: Final = is_token_major
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        for layer in self.layers:
            for pool, size in ((self.keys, layer.key_size), (self.values, layer.value_size)):
                inner = (block_tokens, layer.num_heads) if is_token_major else (layer.num_heads, block_tokens)
                pool.append(torch.zeros(num_blocks + 1, *inner, size, dtype=dtype, device=device))

    def write(self, layer: int, rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """keys, values: [token, head, size]; rows: as `rows` makes them."""
        for pool, new in ((self.keys[layer], keys), (self.values[layer], values)):
            size = new.shape[-1]
            if self.is_token_major:
                pool.view(-1, new.shape[1], size).index_copy_(0, rows, new)
            else:
                pool.view(-1, size).index_copy_(0, rows, new.reshape(-1, size))

    def rows(self, blocks: torch.Tensor, offsets: torch.Tensor, num_heads: int) -> torch.Tensor:
        """Where tokens go that have these blocks and places in them; for layers of `num_heads`."""
        if self.is_token_major:
            return blocks * self.block_tokens + offsets
        heads = torch.arange(num_heads, device=blocks.device)
        return ((blocks[:, None] * num_heads + heads) * self.block_tokens + offsets[:, None]).view(-1)


def num_blocks_of(
    layers: Sequence[LayerShape],
    block_tokens: int,
    *,
    cache_bytes: int,
    cache_share: float,
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    """How many blocks (without block 0) the setting buys. Raises EngineError if that is not one."""
    each = sum(layer.elements_per_token for layer in layers) * block_tokens * dtype.itemsize
    room = cache_bytes or _room(cache_share, device)
    count = room // each - 1
    if count < 1:
        raise errors.EngineError(
            f"the cache has {room:,} bytes and two blocks of {block_tokens} tokens need {2 * each:,}: "
            "give more in cache_bytes or cache_share, or take smaller blocks"
        )
    return int(count)


def _room(share: float, device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * (share or _CUDA_SHARE))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(free * share) if share else min(_CPU_MOST, int(free * _CPU_SHARE))
