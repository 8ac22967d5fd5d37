"""Words, stems, sentences and anchors: their places are in the text, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.contexteval import words

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300) | st.text(
    "aB1_.!? \n\t*-é東", max_size=300
)


@given(TEXTS)
def test_sentences_are_in_order_and_without_space_around_them(text: str) -> None:
    last = 0
    for start, end in words.sentences(text):
        assert last <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        last = end


@given(TEXTS)
def test_sentences_leave_out_nothing_but_space(text: str) -> None:
    spans = words.sentences(text)
    outside = "".join(
        text[end:start] for (_, end), (start, _) in zip([(0, 0), *spans], [*spans, (len(text), 0)], strict=True)
    )
    assert outside.strip() == ""


@given(TEXTS)
def test_words_are_where_they_are_said_to_be(text: str) -> None:
    for word in words.Analyzer().words(text):
        assert 0 <= word.start < word.end <= len(text)
        assert text[word.start : word.end].strip() == text[word.start : word.end]
        assert all(word.stems)


@given(TEXTS)
def test_places_are_those_of_the_words(text: str) -> None:
    analyzer = words.Analyzer()
    expected = [(word.start, word.end, stem) for word in analyzer.words(text) for stem in word.stems]
    assert analyzer.places(text, {stem for _, _, stem in expected}) == expected


def test_abbreviations_decimals_and_lists_end_sentences_where_they_end() -> None:
    text = "It costs 3.5 units, e.g. for Dr. Miller. Why?\n* first item\n* second item\n\n>>> x = 1\n>>> y = 2"
    assert [text[start:end] for start, end in words.sentences(text)] == [
        "It costs 3.5 units, e.g. for Dr. Miller.", "Why?", "* first item", "* second item", ">>> x = 1\n>>> y = 2",
    ]  # fmt: skip


def test_stems_join_forms_of_a_word_and_parts_of_an_identifier() -> None:
    analyzer = words.Analyzer()
    assert analyzer.stems("Raising the raised exceptions") == ["rais", "rais", "except"]
    assert analyzer.stems("read_text") == ["read_text", "read", "text"]
    assert "error" in analyzer.stems("AttributeError")
    assert analyzer.stems("the of and") == []


def test_language_chooses_the_stemmer() -> None:
    assert words.Analyzer("german").stems("Häuser") == words.Analyzer("german").stems("Häusern")
    assert words.Analyzer("none").stems("Raising") == ["raising"]
    with pytest.raises(errors.CorpusError, match="klingon"):
        words.Analyzer("klingon")


def test_text_without_spaces_becomes_pairs_of_characters() -> None:
    assert words.Analyzer().stems("東京タワー") == ["東京", "京タ", "タワ", "ワー"]


def test_anchors_are_names_numbers_identifiers_and_quotes() -> None:
    question = 'Who at IBM changed os.path.join or `with` in Python 3.11, and "lazy loading" for Ada Lovelace?'
    assert words.anchors(question) == (
        "IBM",
        "os.path.join",
        "with",
        "Python",
        "3.11",
        "lazy loading",
        "Ada",
        "Lovelace",
    )
    assert words.anchors("What does it do?") == ()


@pytest.mark.parametrize(
    ("text", "anchor", "is_there"),
    [
        ("in Python 3.11 and", "3.11", True),
        ("in Python 3.110", "3.11", False),
        ("in Python 3.1", "3", False),
        ("call foo_bar()", "foo_bar", True),
        ("call foo_barred()", "foo_bar", False),
        ("lazy\n   loading", "Lazy loading", True),
    ],
)
def test_anchor_is_found_as_a_whole_only(text: str, anchor: str, is_there: bool) -> None:
    assert words.has_anchor(text, anchor) is is_there
