"""The parts that no engine on a CPU reaches, or that are easier to see alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo.llm.scorer.engines.torch_engine import cuda_graphs, generation, sampler


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
