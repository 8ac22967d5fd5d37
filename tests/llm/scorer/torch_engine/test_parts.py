"""The parts that no engine on a CPU reaches, or that are easier to see alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo.llm.scorer.engines.torch_engine import attention, cuda_graphs, generation, paged_cache, sampler


@given(st.integers(1, 2000))
def test_graph_sizes_reach_the_most_and_waste_little(most: int) -> None:
    sizes = cuda_graphs.sizes(most)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == most
    for smaller, larger in itertools.pairwise(sizes):
        assert larger <= 8 or larger - smaller <= max(8, larger // 2)


def test_sampled_tokens_have_the_frequencies_of_the_model() -> None:
    logits = torch.tensor([0.5, 2.0, -1.0, 1.0])
    count = 4000
    draws = [sampler.Draw(row, 0.7, 1.0, 0, (row + 0.5) / count) for row in range(count)]
    tokens = torch.tensor(sampler.choose(logits.expand(count, -1), draws))
    found = torch.bincount(tokens, minlength=4) / count
    assert found.tolist() == pytest.approx(torch.softmax(logits / 0.7, -1).tolist(), abs=1e-3)


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = torch.log(torch.tensor([0.1, 0.5, 0.1, 0.3]))
    draws = [sampler.Draw(row, 1.0, 0.75, 0, row / 100) for row in range(100)]
    tokens = sampler.choose(logits.expand(100, -1), draws)
    assert set(tokens) == {1, 3}
    assert tokens.count(1) == pytest.approx(100 * 0.5 / 0.8, abs=1)


def test_rows_without_a_draw_are_greedy_beside_others() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    assert sampler.choose(logits, [sampler.Draw(1, 1.0, 1.0, 0, 0.0)])[::2] == [1, 0]


@settings(deadline=None)
@given(st.text(max_size=30), st.integers(1, 4))
def test_growing_text_is_the_whole_text(text: str, size: int) -> None:
    """Tokens of a few bytes each: a character may lie across several."""
    data = text.replace("\ufffd", "?").encode()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    growing = generation.Growing(lambda tokens: b"".join(pieces[token] for token in tokens).decode(errors="replace"))
    for token in range(len(pieces)):
        growing.add(token)
    assert growing.text == data.decode()


def _plain_pages(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    *_: int,
    scale: float,
    window_size: tuple[int, int],
    seqused_k: torch.Tensor,
    block_table: torch.Tensor,
    **__: bool,
) -> torch.Tensor:
    """What FlashAttention computes of pages, by its documentation, one sequence after the other."""
    made = []
    for number, length in enumerate(seqused_k.tolist()):
        query = queries[starts[number] : starts[number + 1]].transpose(0, 1)
        key, value = (
            pool[block_table[number].long()].flatten(0, 1)[:length].transpose(0, 1).repeat_interleave(2, 0)
            for pool in (keys, values)
        )
        distance = torch.arange(length - query.shape[1], length)[:, None] - torch.arange(length)
        seen = (distance >= 0) & ((distance <= window_size[0]) | (window_size[0] < 0))
        made.append(torch.nn.functional.scaled_dot_product_attention(query, key, value, seen, scale=scale))
    assert ends.tolist() == [0, *seqused_k.cumsum(0).tolist()]
    return torch.cat([one.transpose(0, 1) for one in made])


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("spread", [1, 5])
def test_attention_over_pages_and_over_blocks_are_the_same(window: int | None, spread: int) -> None:
    """Two prompts, then a step in which one goes on in a chunk and one decodes; blocks close together, or far apart."""
    torch.manual_seed(0)
    shape = paged_cache.LayerShape(2, 8, 8, window)
    module = torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]
    blocks = [[spread * n for n in (1, 3, 5)], [spread * n for n in (2, 4)]]
    found: dict[bool, list[torch.Tensor]] = {}
    steps = [((0, 0, 5), (1, 0, 3)), ((1, 3, 4), (0, 5, 9))]
    given = [[torch.randn(1, heads, 8 if n == 0 else 5, 8) for heads in (4, 2, 2)] for n in range(2)]
    for has_pages in (False, True):
        cache = paged_cache.PagedCache(
            [shape], 5 * spread, 4, dtype=torch.float32, device=torch.device("cpu"), is_token_major=has_pages
        )
        attend = attention.PagedAttention(cache, torch.device("cpu"), _plain_pages)
        for chunks, states in zip(steps, given, strict=True):
            attend.step = _step([(blocks[number], start, stop) for number, start, stop in chunks], has_pages=has_pages)
            found.setdefault(has_pages, []).append(attend(module, states[0], states[1], states[2])[0])
    for one, other in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(one, other)


def _step(chunks: list[tuple[list[int], int, int]], *, has_pages: bool) -> Any:
    places = [(held[place // 4], place % 4) for held, start, stop in chunks for place in range(start, stop)]
    parts = [attention.Part(start, stop, held) for held, start, stop in chunks]
    singles = tuple(part for part in parts if part.stop - part.start == 1)
    lengths = torch.tensor([part.stop for part in parts], dtype=torch.int32)
    pages = attention.Pages(
        starts=torch.tensor([0, *(part.stop - part.start for part in parts)]).cumsum(0),
        ends=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        lengths=lengths,
        table=torch.tensor([[*part.blocks, 0][:3] for part in parts]),
        longest_query=max(part.stop - part.start for part in parts),
        longest_key=int(lengths.max()),
    )
    return attention.Step(
        blocks=torch.tensor([block for block, _ in places]),
        offsets=torch.tensor([offset for _, offset in places]),
        singles=singles,
        longer=tuple(parts[len(singles) :]),
        pages=pages if has_pages else None,
    )
