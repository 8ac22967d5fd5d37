"""Two recordings compared: what decides, what is left out, noise and flaky cases, and the reports of it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm.tracebench import answering

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion, Request
from michelangelo.llm.tracebench import comparison, suite
from michelangelo.llm.tracebench.comparison import Comparison
from michelangelo.llm.tracebench.reporting import diffs, html, junit, markdown, writing
from michelangelo.llm.tracebench.verdict import Settings

SETTINGS = Settings(draws=99, resamples=500)
HOSTILE = "<script>alert(1)</script> ]]> \x00\x1b[31m | `x` **bold** {{ 7*7 }} </pre> @team"


def compared(a: Any, b: Any, asked: suite.Suite | None = None, **changes: Any) -> Comparison:
    asked = asked or answering.yes_suite(200, slices=2)
    one = answering.recorded(asked, a, name="old")
    return comparison.compare(
        one, answering.recorded(asked, b, name="new"), Settings(draws=99, resamples=500, **changes)
    )


def broken_slice(prompt: str) -> float:
    """Right, but for most of the odd questions."""
    return 0.5 if int(prompt.split()[-1]) % 2 else 1.0


def test_a_regression_in_a_slice_is_named() -> None:
    made = compared(answering.saying("yes"), answering.by_rate(broken_slice, seed=1))
    assert made.state == "regression"
    states = {measure.slice: measure.state for measure in made.measures}
    assert states == {"": "regression", "slice-0": "pass", "slice-1": "regression"}
    assert any("slice-1" in reason for reason in made.reasons)
    worse = [change.pair.case.id for change in made.changes if change.kind == "worse"]
    assert all(int(case.split("-")[1]) % 2 for case in worse)
    assert 30 < len(worse) < 70


def test_the_same_answers_pass_and_an_improvement_is_no_alarm() -> None:
    assert compared(answering.saying("yes"), answering.saying("yes")).state == "pass"
    better = compared(answering.by_rate(0.7, seed=2), answering.saying("yes"))
    assert better.state == "pass"
    assert better.measures[0].drop < -0.2


def test_a_lower_score_is_a_regression_when_all_still_pass() -> None:
    def embed(request: Request) -> Completion:
        return Completion(id=request.id, embedding={"yes": (1.0, 0.0), "so": (3.0, 4.0)}.get(request.prompt or ""))

    checks = [{"similarity": {"expected": "yes", "threshold": 0.5}}]
    asked, engines = answering.yes_suite(120, checks=checks), {"embedder": answering.Answering(embed, embeds=True)}
    one = answering.recorded(asked, answering.saying("yes"), engines=engines)
    two = answering.recorded(asked, answering.saying("so"), engines=engines)
    made = comparison.compare(one, two, SETTINGS)
    assert [(m.kind, m.state) for m in made.measures] == [("pass rate", "pass"), ("score", "regression")]
    assert made.measures[1].drop == pytest.approx(0.4)
    assert made.state == "regression"


def test_only_cases_that_are_the_same_are_compared() -> None:
    def named(*cases: dict[str, Any]) -> suite.Suite:
        return suite.from_document({"cases": [{"prompt": "p", "checks": [{"exact": "yes"}], **case} for case in cases]})

    a = named({"id": "same"}, {"id": "asked"}, {"id": "judged"}, {"id": "gone"})
    b = named({"id": "same"}, {"id": "asked", "prompt": "q"}, {"id": "judged", "checks": []}, {"id": "new"})
    one, two = (answering.recorded(asked, answering.saying("yes")) for asked in (a, b))
    left = comparison.compare(one, two, SETTINGS).pairing
    assert [pair.case.id for pair in left.pairs] == ["same"]
    assert (left.only_in_a, left.only_in_b) == (("gone",), ("new",))
    assert (left.asked_otherwise, left.judged_otherwise) == (("asked",), ("judged",))
    only = answering.recorded(named({"id": "judged"}), answering.saying("yes"))
    with pytest.raises(errors.SuiteError, match=r"no case in common.*1 judged otherwise.*record --rescore"):
        comparison.compare(only, two, SETTINGS)


def test_noise_is_what_a_version_does_to_itself() -> None:
    asked = answering.yes_suite(300, repeats=4)
    made = compared(answering.by_rate(0.8, seed=3), answering.by_rate(0.8, seed=4), asked)
    assert made.noise.floor == pytest.approx(2 * 0.8 * 0.2, abs=0.03)
    assert made.noise.excess < 0.03
    assert len(made.flaky) > 200
    assert made.flaky[0].repeats_a == 4
    moved = compared(answering.by_rate(0.8, seed=3), answering.by_rate(0.2, seed=4), asked)
    assert moved.noise.excess == pytest.approx(0.36, abs=0.05)
    assert compared(answering.saying("yes"), answering.saying("yes")).noise.floor is None


def test_different_numbers_of_repeats_are_compared_by_the_fewer() -> None:
    asked = answering.yes_suite(100)
    one = answering.recorded(asked, answering.by_rate(0.9, seed=5), repeats=5)
    two = answering.recorded(asked, answering.by_rate(0.9, seed=6), repeats=2)
    made = comparison.compare(one, two, SETTINGS)
    assert all(pair.num_repeats == 2 for pair in made.pairing.pairs)
    assert made.state != "regression"


def test_errors_of_the_engine_fail_and_are_said() -> None:
    failing = answering.Answering(lambda r: Completion(id=r.id, error="503", finish_reason="error"))
    made = compared(answering.saying("yes"), failing)
    assert made.state == "regression"
    assert made.errors_b == {"engine": 200}
    assert "200 answers of B are errors of its engine, and count as failed" in made.reasons


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(errors.SuiteError, match="alpha must be more than 0"):
        compared(answering.saying("yes"), answering.saying("yes"), alpha=0.0)


# --- reports ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile() -> Comparison:
    cases = [
        {"id": f"<b>{i}</b>", "prompt": HOSTILE, "slices": ['"><i>'], "checks": [{"exact": "yes"}]} for i in range(40)
    ]
    return compared(answering.saying("yes"), answering.saying(HOSTILE), suite.from_document({"cases": cases}))


class Tags(HTMLParser):
    """What a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_one_file_that_runs_nothing_of_the_answers(hostile: Comparison) -> None:
    seen = Tags()
    seen.feed(html.render(hostile))
    assert seen.tags.count("script") == 1
    assert not {"b", "i", "iframe", "img"} & set(seen.tags)
    assert seen.links == []
    assert "<script>alert(1)</script>" in seen.text
    assert "{{ 7*7 }}" in seen.text
    assert seen.tags.count("article") == 40


def test_html_of_huge_answers_is_bounded() -> None:
    made = compared(answering.saying("a " * 40_000), answering.saying("b " * 40_000), answering.yes_suite(310))
    page = html.render(made)
    assert page.count("<article") == html.MAX_CASES
    assert len(page) < 5_000_000
    assert "10 further cases changed" in page


def test_junit_fails_for_what_ends_the_gate_only(hostile: Comparison) -> None:
    root = ElementTree.fromstring(junit.render(hostile))
    gate, cases = root.findall("testsuite")
    assert (gate.get("failures"), cases.get("failures"), cases.get("tests")) == ("3", "0", "40")
    unsure = compared(answering.saying("yes"), answering.saying("yes"), answering.yes_suite(5))
    assert unsure.state == "inconclusive"
    strict, relaxed = (junit.render(unsure, allows_inconclusive=allows) for allows in (False, True))
    assert b"<failure" in strict
    assert b"<failure" not in relaxed


def test_markdown_escapes_and_folds(hostile: Comparison) -> None:
    page = markdown.render(hostile)
    assert page.startswith("## ❌ Trace-bench: regression\n")
    assert "<script>" not in page
    assert not re.search(r"(?<!\\)@team", page)
    assert "40 cases became worse, the first 10" in page


def test_json_has_no_numbers_that_json_lacks(hostile: Comparison) -> None:
    text = json.dumps(comparison.summary(hostile), allow_nan=False)
    assert json.loads(text)["verdict"] == "regression"


def test_reports_are_written_whole_or_not_at_all(hostile: Comparison, tmp_path: Path) -> None:
    for name in ("r.html", "r.xml", "r.md", "r.json"):
        writing.write(hostile, tmp_path / "deep" / name)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["r.html", "r.json", "r.md", "r.xml"]
    with pytest.raises(errors.SuiteError, match=r"a report is one of \*\.html"):
        writing.write(hostile, tmp_path / "r.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.SuiteError, match="cannot be written"):
        writing.write(hostile, tmp_path / "file" / "r.md")


@given(a=st.text(max_size=80), b=st.text(max_size=80))
def test_diffs_keep_both_texts_and_mark_what_differs(a: str, b: str) -> None:
    left, right = diffs.words(a, b)
    assert ("".join(p.text for p in left), "".join(p.text for p in right)) == (a, b)
    same = ["".join(p.text for p in pieces if not p.differs) for pieces in (left, right)]
    assert same[0] == same[1]
    assert any(p.differs for p in left + right) == (a != b)


def test_diffs_of_many_words_tell_the_ends_apart() -> None:
    a = "x " * 900
    left, right = diffs.words(a + "one" + " y" * 50, a + "two" + " y" * 50)
    assert [p.text for p in left if p.differs] == ["one"]
    assert [p.text for p in right if p.differs] == ["two"]
