"""Chunks: spans of the text that never overlap, within their budgets, with code in one piece where it fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.contexteval import chunks
from michelangelo.llm.contexteval.blocks import Block
from michelangelo.llm.contexteval.chunks import Chunk

SECTIONS = st.sampled_from([(), ("A",), ("A", "B"), ("C",)])
BLOCKS = st.lists(
    st.builds(
        Block,
        st.text("ab é東.\n", min_size=1, max_size=400),
        st.sampled_from(["prose", "code", "table", "heading"]),
        SECTIONS,
    ),
    max_size=12,
)


def cut(found: list[Block], chunk_chars: int = 100, code_chars: int = 200) -> tuple[str, list[Chunk]]:
    parts: list[str] = []
    made = list(chunks.cut(found, parts.append, chunk_chars=chunk_chars, code_chars=code_chars))
    return "".join(parts), made


@given(BLOCKS)
def test_chunks_are_spans_of_the_text_in_characters_and_bytes(found: list[Block]) -> None:
    text, made = cut(found)
    last = 0
    for chunk in made:
        assert last <= chunk.start
        assert text[chunk.start : chunk.end] == chunk.text
        data = text.encode()[chunk.byte_start : chunk.byte_start + len(chunk.text.encode())]
        assert data.decode() == chunk.text
        assert len(chunk.text) <= 200
        last = chunk.end


@given(BLOCKS)
def test_every_word_of_a_body_is_in_a_chunk(found: list[Block]) -> None:
    _, made = cut(found)
    body = "".join("".join(block.text for block in found if block.kind != "heading").split())
    kept = "".join("".join(chunk.text for chunk in made).split())
    headings = sum(len("".join(block.text.split())) for block in found if block.kind == "heading")
    assert len(body) <= len(kept) <= len(body) + headings


def test_code_stays_whole_with_the_sentence_that_introduces_it() -> None:
    code = "x = 1\n" * 20
    _, made = cut(
        [
            Block("Some words. " * 7, section=("A",)),
            Block("As in:", section=("A",)),
            Block(code.strip(), "code", ("A",)),
        ]
    )
    assert [chunk.kind for chunk in made] == ["prose", "code"]
    assert made[1].text.endswith(code.strip())


def test_code_beyond_its_budget_is_cut_between_lines() -> None:
    lines = [f"value_{i} = {i}" for i in range(40)]
    _, made = cut([Block("\n".join(lines), "code")])
    assert len(made) > 1
    assert [line for chunk in made for line in chunk.text.split("\n") if line] == lines


def test_long_paragraph_is_cut_between_sentences() -> None:
    sentence = "This sentence has about forty characters."
    _, made = cut([Block(" ".join([sentence] * 9))])
    assert all(chunk.text.endswith(".") and chunk.text.startswith("This") for chunk in made)


def test_heading_with_nothing_below_it_is_a_chunk() -> None:
    found = [
        Block("A", "heading", ("A",)),
        Block("B", "heading", ("A", "B")),
        Block("C", "heading", ("C",)),
        Block("x", section=("C",)),
    ]
    _, made = cut(found)
    assert [(chunk.section, chunk.text) for chunk in made] == [(("A", "B"), "B"), (("C",), "x")]
