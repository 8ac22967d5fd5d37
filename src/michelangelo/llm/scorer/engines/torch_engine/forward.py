"""One step: chunks of sequences → tensors → the model → logits and hidden states of the tokens that somebody wants.

It knows no requests and chooses no tokens. On a GPU, steps that only decode are replayed from CUDA graphs.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch

from michelangelo import errors
from michelangelo.llm.scorer.engines.torch_engine import attention, cuda_graphs, loading, paged_cache
from michelangelo.llm.scorer.engines.torch_engine.config import CPU_BLOCK_TOKENS, CUDA_BLOCK_TOKENS, TorchEngineConfig
from michelangelo.llm.scorer.engines.torch_engine.scheduler import Chunk
from michelangelo.llm.scorer.engines.torch_engine.scheduler import Sequence as Running

__all__ = ["Forward", "Outputs"]

_PROBE: Final = (11, 6)
"""Tokens of the two sequences with which a model is checked."""
_TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 8e-2, torch.float16: 2e-2}
"""Relative to the largest hidden value: another order of sums, and nothing more."""
_FLASH_MOST: Final = 256
"""Largest size of a head that FlashAttention 2 takes."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """logits: [row, vocabulary] of the rows asked for. hidden: [token, size] of the whole step, if it was asked for."""

    logits: torch.Tensor | None
    hidden: torch.Tensor | None


class Forward:
    """A loaded model and its cache. Raises EngineError or ModelError if it cannot be served within the memory given."""

    def __init__(self, loaded: loading.Loaded, config: TorchEngineConfig) -> None:
        self.loaded: Final = loaded
        model = loaded.model
        shapes = loading.layer_shapes(loaded)
        self._reads_pages = _reads_pages(loaded, shapes)
        self.block_tokens: Final = config.block_tokens or (CUDA_BLOCK_TOKENS if self._reads_pages else CPU_BLOCK_TOKENS)
        if self._reads_pages and self.block_tokens % CUDA_BLOCK_TOKENS:
            raise errors.EngineError(
                f"block_tokens: {self.block_tokens} is no multiple of {CUDA_BLOCK_TOKENS}, which FlashAttention needs"
            )
        num_blocks = paged_cache.num_blocks_of(
            shapes,
            self.block_tokens,
            cache_bytes=config.cache_bytes,
            cache_share=config.cache_share,
            dtype=model.dtype,
            device=loaded.device,
        )
        self.context: Final = _context(loaded, config, num_blocks * self.block_tokens)
        self.num_blocks: Final = min(num_blocks, -(-self.context // self.block_tokens) * config.max_sequences)
        self.cache: Final = paged_cache.PagedCache(
            shapes,
            self.num_blocks,
            self.block_tokens,
            dtype=model.dtype,
            device=loaded.device,
            is_token_major=self._reads_pages,
        )
        self._attention: Final = attention.PagedAttention(self.cache, loaded.device)
        loading.attend_with(loaded, self._attention)
        self._passing: Final = paged_cache.Passing()
        self._keeps: Final = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._hidden: torch.Tensor | None = None
        self._base: Final = loaded.base
        self._is_causal_lm: Final = "generate" in loaded.tasks
        self._base.register_forward_hook(self._remember)
        self._graphs: cuda_graphs.DecodeGraphs | None = None
        if config.checks_model:
            self._check_all()
        self._graphs = self._make_graphs(config)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], rows: Sequence[int], *, wants_hidden: bool = False) -> Outputs:
        """The step; `rows`: numbers of tokens in it whose logits are wanted. Chunks of one token come first.

        Raises EngineError if the device fails.
        """
        tokens = [token for chunk in chunks for token in chunk.sequence.tokens[chunk.start : chunk.stop]]
        try:
            is_decoding = not wants_hidden and len(rows) == len(tokens) == len(chunks)
            logits = self._graphs.run(tokens, chunks) if self._graphs is not None and is_decoding else None
            if logits is not None:
                return Outputs(logits, None)
            return self._run(tokens, chunks, rows, wants_hidden=wants_hidden)
        except RuntimeError as e:
            raise errors.EngineError(
                f"{type(self.loaded.model).__name__} failed in a step of {len(tokens)} tokens: "
                f"{str(e).strip().splitlines()[0]}; open the engine anew, with a smaller max_batch_tokens or cache"
            ) from e

    def _run(
        self, tokens: Sequence[int], chunks: Sequence[Chunk], rows: Sequence[int], *, wants_hidden: bool
    ) -> Outputs:
        device = self.loaded.device
        positions = np.concatenate([np.arange(chunk.start, chunk.stop) for chunk in chunks])
        self._attention.step = self._step(chunks, positions)
        given: dict[str, Any] = {
            "input_ids": torch.tensor([tokens], device=device),
            "position_ids": torch.as_tensor(positions, device=device)[None],
            "past_key_values": self._passing,
            "use_cache": True,
        }
        logits = None
        if self._is_causal_lm and rows:
            wanted = torch.tensor(rows, device=device)
            if self._keeps:
                logits = self.loaded.model(**given, logits_to_keep=wanted).logits[0]
            else:
                logits = self.loaded.model(**given).logits[0].index_select(0, wanted)
        else:
            self._base(**given)
        hidden = self._hidden if wants_hidden else None
        self._hidden = None
        return Outputs(logits, hidden)

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """[row, size] → [row]: the one label of a model that classifies."""
        with torch.inference_mode():
            return cast(torch.Tensor, cast(Any, self.loaded.model).score(hidden))[:, 0]

    def close(self) -> None:
        """May be called twice."""
        loading.release(self.loaded)
        self.cache.keys.clear()
        self.cache.values.clear()

    def _remember(self, _module: torch.nn.Module, _given: Any, made: Any) -> None:
        self._hidden = made.last_hidden_state[0]

    def _step(self, chunks: Sequence[Chunk], positions: np.ndarray[Any, Any]) -> attention.Step:
        size, device = self.block_tokens, self.loaded.device
        blocks = []
        for chunk in chunks:
            held = chunk.sequence.blocks
            if chunk.stop - chunk.start == 1:
                blocks.append(held[chunk.start // size])
            else:
                blocks.extend(held[position // size] for position in range(chunk.start, chunk.stop))
        parts = [attention.Part(chunk.start, chunk.stop, chunk.sequence.blocks) for chunk in chunks]
        num_singles = sum(1 for part in parts if part.stop - part.start == 1)
        return attention.Step(
            blocks=torch.tensor(blocks, device=device),
            offsets=torch.as_tensor(positions % size, device=device),
            singles=tuple(parts[:num_singles]),
            longer=tuple(parts[num_singles:]),
            pages=self._pages(parts) if self._reads_pages else None,
        )

    def _pages(self, parts: Sequence[attention.Part]) -> attention.Pages:
        device, size = self.loaded.device, self.block_tokens
        counts = [part.stop - part.start for part in parts]
        lengths = [part.stop for part in parts]
        width = max(-(-length // size) for length in lengths)
        table = [[*part.blocks[:width], *[0] * (width - len(part.blocks))] for part in parts]
        return attention.Pages(
            starts=torch.tensor(np.cumsum([0, *counts]), dtype=torch.int32, device=device),
            ends=torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device=device),
            lengths=torch.tensor(lengths, dtype=torch.int32, device=device),
            table=torch.tensor(table, dtype=torch.int32, device=device),
            longest_query=max(counts),
            longest_key=max(lengths),
        )

    def _make_graphs(self, config: TorchEngineConfig) -> cuda_graphs.DecodeGraphs | None:
        if not (self._reads_pages and config.uses_cuda_graphs and self._is_causal_lm):
            return None
        return cuda_graphs.DecodeGraphs(
            self.loaded.model, self._attention, self.cache, context=self.context, most=config.max_sequences
        )

    @property
    def attends_by(self) -> str:
        """pages: FlashAttention reads the cache itself. blocks: products over blocks."""
        return "pages" if self._reads_pages else "blocks"

    def _check_all(self) -> None:
        """A GPU whose FlashAttention cannot read pages, or reads them wrongly, is served without it."""
        if self._reads_pages:
            try:
                self._check()
            except errors.LlmError:
                self._reads_pages = False
        if not self._reads_pages:
            self._check()

    def _check(self) -> None:
        """Two sequences, in chunks and singly, must give what the model's own attention gives for each alone."""
        if self.context < max(_PROBE) or self.num_blocks * self.block_tokens < 2 * max(_PROBE) + self.block_tokens:
            return
        loaded = self.loaded
        made = np.random.default_rng(0).integers(0, loaded.vocab_size, size=sum(_PROBE)).tolist()
        first = Running("first", made[: _PROBE[0]])
        second = Running("second", made[_PROBE[0] :])
        expected = [loading.own_hidden_states(loaded, sequence.tokens) for sequence in (first, second)]
        needed = -(-_PROBE[0] // self.block_tokens)
        first.blocks = list(range(1, 1 + needed))
        second.blocks = list(range(1 + needed, 1 + 2 * needed))[: self.num_blocks - needed]
        steps = (
            (Chunk(first, 0, 6), Chunk(second, 0, 3)),
            (Chunk(second, 3, 4), Chunk(first, 6, 10)),
            (Chunk(first, 10, 11), Chunk(second, 4, 6)),
        )
        for step in steps:
            hidden = self.run(step, (), wants_hidden=True).hidden
            place = 0
            for chunk in step:
                count = chunk.stop - chunk.start
                right = expected[0 if chunk.sequence is first else 1][chunk.start : chunk.stop].float()
                assert hidden is not None
                error = (hidden[place : place + count].float() - right).abs().max() / right.abs().max()
                if not float(error) <= _TOLERANCE.get(loaded.model.dtype, 8e-2):
                    raise errors.ModelError(
                        f"{type(loaded.model).__name__}: over a cache of blocks its hidden states are off by "
                        f"{float(error):.1%}, so it cannot be served here; use the vllm engine"
                    )
                place += count


def _reads_pages(loaded: loading.Loaded, shapes: Sequence[paged_cache.LayerShape]) -> bool:
    if loaded.device.type != "cuda" or loaded.model.dtype not in (torch.float16, torch.bfloat16):
        return False
    if torch.cuda.get_device_capability(loaded.device) < (8, 0):
        return False
    return all(s.is_plain and s.key_size == s.value_size and s.key_size <= _FLASH_MOST for s in shapes)


def _context(loaded: loading.Loaded, config: TorchEngineConfig, room: int) -> int:
    if config.max_context and loaded.context and config.max_context > loaded.context:
        raise errors.EngineError(f"max_context: {config.max_context} is more than the {loaded.context} the model takes")
    if config.max_context > room:
        raise errors.EngineError(
            f"the cache holds {room:,} tokens, so one sequence of max_context ({config.max_context:,}) does not fit: "
            "give more in cache_bytes or cache_share, or lower max_context"
        )
    return config.max_context or min(room, loaded.context or room)
