"""Decoding on a GPU without Python: one recorded graph per number of sequences, replayed with the step's numbers in it.

A step of a small batch is a thousand kernels of microseconds each; starting them one by one takes longer than they do.
A graph is recorded for 1, 2, 4, 8, 16, 24, 32 … sequences when it is first wanted; a step takes the next larger one and
fills up with rows that write into block 0. It needs attention that reads pages, as shapes must not change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from michelangelo.llm.scorer.engines.torch_engine import attention, paged_cache
from michelangelo.llm.scorer.engines.torch_engine.scheduler import Chunk

__all__ = ["DecodeGraphs", "sizes"]

_WARM_UPS: Final = 2
"""Runs before recording: libraries take their workspaces, kernels are chosen."""


def sizes(most: int) -> list[int]:
    """Numbers of sequences for which graphs are recorded: few, and never more than a third too many beyond 8."""
    found = [size for size in (1, 2, 4) if size < most]
    found.extend(
        itertools.takewhile(lambda size: size < most, itertools.chain(range(8, 64, 8), range(64, 1 << 14, 32)))
    )
    return [*found, most]


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: Any
    numbers: torch.Tensor
    """As `_numbers` makes them, on the device."""
    logits: torch.Tensor


class DecodeGraphs:
    """Recorded steps of one model. context: the largest length of a sequence; most: of sequences at once."""

    def __init__(
        self,
        model: torch.nn.Module,
        attend: attention.PagedAttention,
        cache: paged_cache.PagedCache,
        *,
        context: int,
        most: int,
    ) -> None:
        self._model: Final = model
        self._attend: Final = attend
        self._cache: Final = cache
        self._context: Final = context
        self._width: Final = -(-context // cache.block_tokens)
        self._sizes: Final = sizes(most)
        self._recorded: dict[int, _Recorded] = {}
        self._pool: Any = None
        self._device: Final = cache.keys[0].device

    def run(self, tokens: Sequence[int], chunks: Sequence[Chunk]) -> torch.Tensor | None:
        """Logits [sequence, vocabulary], valid until the next call; None: there are more sequences than a graph has."""
        size = next((size for size in self._sizes if size >= len(chunks)), 0)
        if not size:
            return None
        if (recorded := self._recorded.get(size)) is None:
            recorded = self._recorded[size] = self._record(size)
        filled = torch.from_numpy(self._numbers(tokens, chunks, size)).pin_memory()
        recorded.numbers.copy_(filled, non_blocking=True)
        recorded.graph.replay()
        return recorded.logits[: len(chunks)]

    def _numbers(
        self, tokens: Sequence[int], chunks: Sequence[Chunk], size: int
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """[4 + blocks, size]: token, position, row, length, and the blocks. One copy to the device for all of them."""
        made = np.zeros((4 + self._width, size), dtype=np.int64)
        made[3] = 1
        block_tokens = self._cache.block_tokens
        for number, (token, chunk) in enumerate(zip(tokens, chunks, strict=True)):
            block = chunk.sequence.blocks[chunk.start // block_tokens]
            made[:4, number] = token, chunk.start, block * block_tokens + chunk.start % block_tokens, chunk.stop
            held = -(-chunk.stop // block_tokens)
            made[4 : 4 + held, number] = chunk.sequence.blocks[:held]
        return made

    def _record(self, size: int) -> _Recorded:
        device = self._device
        numbers = torch.from_numpy(self._numbers((), (), size)).to(device)
        lengths = torch.ones(size, dtype=torch.int32, device=device)
        table = torch.zeros(size, self._width, dtype=torch.int32, device=device)
        ends = torch.zeros(size + 1, dtype=torch.int32, device=device)
        starts = torch.arange(size + 1, dtype=torch.int32, device=device)
        passing = paged_cache.Passing()

        def step() -> torch.Tensor:
            lengths.copy_(numbers[3])
            ends[1:].copy_(numbers[3].cumsum(0))
            table.copy_(numbers[4:].t())
            rows = {layer.num_heads: numbers[2] for layer in self._cache.layers}
            self._attend.step = attention.Step(
                blocks=numbers[2],
                offsets=numbers[2],
                singles=(),
                rows=rows,
                pages=attention.Pages(starts, ends, lengths, table, longest_query=1, longest_key=self._context),
            )
            made = self._model(
                input_ids=numbers[0][None], position_ids=numbers[1][None], past_key_values=passing, use_cache=True
            )
            logits: torch.Tensor = made.logits[0]
            return logits

        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                step()
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = step()
        self._pool = self._pool or graph.pool()
        return _Recorded(graph, numbers, logits)
