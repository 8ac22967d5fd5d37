"""MiniLM as an engine: real weights, offline, and what it says of requests that it cannot serve."""

from __future__ import annotations

import pytest

from michelangelo.llm.scorer import engine
from michelangelo.llm.scorer.engine import Request
from michelangelo.llm.tracebench import embedding
from michelangelo.llm.tracebench.checks import similarity


def test_only_prompts_are_embedded() -> None:
    made = list(engine.run(embedding.MiniLm(), [Request(id="a", prompt="text")]))
    assert [(one.id, one.error) for one in made] == [("a", "MiniLM only embeds prompts")]


def test_what_is_cancelled_comes_back_and_what_is_unknown_changes_nothing() -> None:
    opened = embedding.MiniLm()
    opened.submit(Request(id="a", prompt="text", task="embed"))
    opened.cancel("a")
    opened.cancel("b")
    assert [(one.id, one.finish_reason) for one in opened.poll(0)] == [("a", "cancelled")]
    assert opened.poll(0) == []


@pytest.mark.slow
def test_sentences_that_mean_the_same_are_near() -> None:
    texts = ["The capital of France is Paris.", "Paris is the capital city of France.", "I like cheese."]
    requests = [Request(id=str(number), prompt=text, task="embed") for number, text in enumerate(texts)]
    made = {one.id: one.embedding or () for one in engine.run(embedding.MiniLm(), requests)}
    assert similarity.cosine(made["0"], made["1"]) > 0.9
    assert similarity.cosine(made["0"], made["2"]) < 0.3
