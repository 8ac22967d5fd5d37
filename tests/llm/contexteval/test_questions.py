"""Files of labelled questions: every mistake is said with its line, splits stay, and the set over CPython's topics is
what it says it is."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from pydoc_data import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.contexteval import questions

CPYTHON = Path(__file__).parents[3] / "examples" / "ask_cpython_docs" / "questions.jsonl"


def _line(**fields: object) -> str:
    return json.dumps({"id": "a", "question": "What is it?", "label": "unanswerable"} | fields)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(_line() + "\n\n" + _line(id="b", question="Which?", label="answerable", quote="this one") + "\n")
    first, second = questions.load(path)
    assert (first.label, first.is_answerable) == ("unanswerable", False)
    assert second.quotes == ("this one",)
    assert second.is_supported_by('It is "This\n  One".')


def test_every_mistake_is_said_at_once() -> None:
    lines = [
        "{",
        "[]",
        _line(label="maybe"),
        _line(id="b", question="  "),
        _line(id="c", question="Other?", label="answerable"),
        _line(id="d", question="With?", quote="x"),
        _line(id="e", question="Where?", topic="x"),
        _line(id="f", question=3),
    ]
    with pytest.raises(errors.CorpusError) as caught:
        questions.parse(lines)
    said = str(caught.value)
    for number, words in (
        (1, "no JSON"),
        (2, "not a JSON object"),
        (3, "label 'maybe'"),
        (4, "question is missing"),
        (5, "needs a quote"),
        (6, "change its label"),
        (7, "unknown field 'topic'"),
        (8, "question must be a text"),
    ):
        assert any(f"line {number}:" in line and words in line for line in said.split("\n")), (number, said)


def test_a_question_twice_is_refused_whatever_its_case_and_space() -> None:
    with pytest.raises(errors.CorpusError, match="line 2: the same question as line 1"):
        questions.parse([_line(), _line(id="b", question="what  IS it?")])
    with pytest.raises(errors.CorpusError, match="id 'a' is that of line 1"):
        questions.parse([_line(), _line(question="Another?")])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\n\n"])
def test_a_file_without_questions_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(content)
    with pytest.raises(errors.CorpusError):
        questions.load(path)
    with pytest.raises(errors.CorpusError, match="cannot be read"):
        questions.load(tmp_path / "missing.jsonl")


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_line_is_a_question_or_a_corpus_error(line: str) -> None:
    try:
        assert questions.parse([line])
    except errors.CorpusError:
        pass


def test_a_split_stays_when_questions_are_added_or_sorted() -> None:
    asked = questions.load(CPYTHON)
    first, second = questions.split(asked, 0.4)
    again, _ = questions.split(asked[::-1][:500], 0.4)
    assert {one.id for one in again} == {one.id for one in asked[::-1][:500]} & {one.id for one in first}
    assert 0.34 < len(first) / len(asked) < 0.46
    assert len(first) + len(second) == len(asked)
    other, _ = questions.split(asked, 0.4, salt="other")
    assert other != first


def test_the_questions_over_cpython_are_many_and_varied() -> None:
    asked = questions.load(CPYTHON)
    counts = Counter(one.label for one in asked)
    assert counts["answerable"] >= 200
    assert counts["unanswerable"] >= 200
    assert counts["near-miss"] >= 200
    openings = Counter(one.text.split()[0].lower() for one in asked if one.is_answerable)
    assert len(openings) > 40
    assert len({one.document for one in asked if one.is_answerable}) > 60


def test_the_quotes_are_in_cpythons_topics() -> None:
    asked = questions.load(CPYTHON)
    missing = questions.missing_quotes(asked, topics.topics)
    # Written for Python 3.11; other versions say some things in other words.
    allowed = 0 if sys.version_info[:2] == (3, 11) else len(asked) // 10
    assert len(missing) <= allowed, missing[:5]


def test_a_quote_that_is_nowhere_is_said() -> None:
    asked = questions.parse([_line(label="answerable", quote="the cat sat", document="b.txt")])
    assert questions.missing_quotes(asked, {"b.txt": "The dog sat."}) == ["a: 'the cat sat' is not in b.txt"]
    assert questions.missing_quotes(asked, {"b.txt": "x The  CAT\nsat y"}) == []
    assert questions.missing_quotes(asked, {"c.txt": "the cat sat"}) == []
