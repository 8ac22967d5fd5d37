"""The check of claims against spans: one changed fact is enough to fail it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.contexteval import claims, embedders, words

ANALYZER = words.Analyzer()
SPAN = (
    "If the attribute is not found, an AttributeError is raised after 5 ms. Lists are mutable and hold up to 1,000 "
    "items, while tuples, which Python 3.10 made faster, never change. The pump was built by Anna Berg."
)


@pytest.mark.parametrize(
    "claim",
    [
        "An AttributeError is raised if the attribute is not found.",
        "AttributeErrors are raised after 5 milliseconds.",
        "Lists hold up to 1000 items.",
        "Tuples never change.",
        "According to the document, the pump was built by Anna Berg.",
        "Lists are mutable.",
    ],
)
def test_what_the_span_says_is_supported(claim: str) -> None:
    assert claims.check(claim, SPAN, ANALYZER).problems == ()


@pytest.mark.parametrize(
    ("claim", "problem"),
    [
        ("A KeyError is raised if the attribute is not found.", "KeyError"),
        ("An AttributeError is not raised.", "opposite"),
        ("The attribute is found.", "opposite"),
        ("Lists are not mutable.", "opposite"),
        ("Tuples change.", "opposite"),
        ("An AttributeError is raised after 5 s.", "5 s"),
        ("An AttributeError is raised after 50 ms.", "number 50"),
        ("Lists hold up to 1,001 items.", "number 1001"),
        ("Python 3.1 made tuples faster.", "number 3.1"),
        ("The pump was built by Anna Borg.", "Borg"),
        ("Lists are immutable.", "immutable"),
        ("It is.", "nothing"),
        ("", "nothing"),
    ],
)
def test_one_changed_fact_is_not_supported(claim: str, problem: str) -> None:
    found = claims.check(claim, SPAN, ANALYZER)
    assert not found.is_supported
    assert problem in " ".join(found.problems)


def test_headings_name_what_a_span_is_about() -> None:
    claim, span = "The Corvo pump moves 40 litres.", "It moves 40 litres per minute."
    assert not claims.check(claim, span, ANALYZER).is_supported
    assert claims.check(claim, span, ANALYZER, context="The Corvo pump").is_supported


def test_numbers_of_headings_are_no_facts() -> None:
    assert not claims.check("It moves 7 litres.", "It moves litres.", ANALYZER, context="Chapter 7").is_supported


def test_span_about_something_else_fails_by_its_meaning() -> None:
    embedder = embedders.HashingEmbedder(256)
    span = "Pumps move water. " + "Quarterly earnings rose sharply in all the foreign markets of the group. " * 9
    found = claims.check("Pumps move water.", span, ANALYZER, embedder=embedder)
    assert found.similarity is not None
    assert "something else" in " ".join(found.problems)


@given(st.sampled_from(SPAN.split(". ")))
def test_a_sentence_supports_itself(sentence: str) -> None:
    assert claims.check(sentence, SPAN, ANALYZER).is_supported


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_another_number_is_never_supported(there: int, claimed: int) -> None:
    found = claims.check(f"The tank holds {claimed} litres", f"The tank holds {there:,} litres.", ANALYZER)
    assert found.is_supported is (there == claimed)


def test_window_is_the_shortest_with_most_of_the_claim() -> None:
    text = "Pumps move water. Valves open at 3 bar. They close at 2 bar. Gloves are worn."
    start, end, stems = claims.best_window("Valves open at 3 bar and close at 2 bar", text, ANALYZER, max_sentences=3)
    assert text[start:end] == "Valves open at 3 bar. They close at 2 bar."
    assert {"valv", "close"} <= stems
    assert claims.best_window("Zebras", text, ANALYZER, max_sentences=3) == (0, 0, frozenset())
