"""Suites from files: what is read, digests that say what changed, and every wrong field at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.tracebench import suite
from michelangelo.llm.tracebench.suite import Suite

YAML = """
name: capitals
defaults:
  repeats: 2
  sampling: {max_tokens: 16}
  checks: [{refusal: false}]
cases:
  - id: france
    prompt: What is the capital of France?
    slices: {language: en, topic: geography}
    checks: [{exact: {expected: Paris, contains: true}}]
  - id: 7
    messages: [{role: system, content: Be brief.}, {role: user, content: And of Italy?}]
    tags: [short]
    repeats: 1
"""


def made(**changes: Any) -> Suite:
    case = {"id": "a", "prompt": "p", "checks": [{"exact": "x"}], **changes}
    return suite.from_document({"cases": [case]})


def test_yaml_is_read_with_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "capitals.yaml"
    file.write_text(YAML)
    found = suite.load(file)
    france, italy = found.cases
    assert found.name == "capitals"
    assert (france.slices, italy.slices) == (("language=en", "topic=geography"), ("short",))
    assert (france.repeats, italy.repeats, italy.id) == (2, 1, "7")
    assert [check.type for check in france.checks] == ["refusal", "exact"]
    assert france.sampling == {"max_tokens": 16}
    assert italy.question == "And of Italy?"


def test_jsonl_is_a_case_a_line(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"id": "a", "prompt": "p"}\n\n{"id": "b", "prompt": "q", "checks": [{"regex": "x"}]}\n')
    assert [case.id for case in suite.load(file).cases] == ["a", "b"]


def test_a_suite_survives_its_document(tmp_path: Path) -> None:
    file = tmp_path / "capitals.yaml"
    file.write_text(YAML)
    found = suite.load(file)
    again = suite.from_document(json.loads(json.dumps(found.document())))
    assert again.digest == found.digest
    assert [c.input_digest for c in again.cases] == [c.input_digest for c in found.cases]


def test_digests_say_what_changed() -> None:
    before = made().cases[0]
    for change in ({"prompt": "q"}, {"id": "b"}, {"sampling": {"seed": 1}}, {"vars": {"x": 1}}):
        other = made(**change).cases[0]
        assert (other.input_digest != before.input_digest, other.checks_digest == before.checks_digest) == (True, True)
    other = made(checks=[{"exact": "y"}]).cases[0]
    assert (other.input_digest == before.input_digest, other.checks_digest != before.checks_digest) == (True, True)
    # Slices, repeats and the way a check is written down are neither.
    other = made(slices=["s"], repeats=3, checks=[{"type": "exact", "expected": "x"}]).cases[0]
    assert (other.input_digest, other.checks_digest) == (before.input_digest, before.checks_digest)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": None}, "cases[0]: give exactly one of prompt and messages"),
        ({"messages": [{"role": "user"}]}, "cases[0]: give exactly one of prompt and messages"),
        ({"prompt": 5}, "cases[0].prompt: must be text"),
        ({"id": ""}, "cases[0].id: must be text that is not empty"),
        ({"repeats": 0}, "cases[0].repeats: must be a whole number from 1 to 1000"),
        ({"chekcs": []}, "cases[0].chekcs: there is no such field"),
        ({"sampling": {"temprature": 1}}, "cases[0].sampling.temprature: there is no such field"),
        ({"sampling": {"seed": "x"}}, "cases[0].sampling.seed: must be of type int"),
        ({"slices": "x"}, "cases[0].slices: must be a list of names, or a mapping"),
        ({"checks": "x"}, "cases[0].checks: must be a list"),
        ({"checks": ["x"]}, "cases[0].checks[0]: must be a mapping with a type: exact, regex,"),
        ({"checks": [{"type": "magic"}]}, "cases[0].checks[0].type: there is no check 'magic'; known: exact,"),
        ({"checks": [{"magic": 1}]}, "cases[0].checks[0]: must have a type, one of exact,"),
        ({"checks": [{"regex": "("}]}, "cases[0].checks[0].pattern: '(' is no regular expression"),
        ({"checks": [{"json_schema": {"type": "objekt"}}]}, "cases[0].checks[0].schema: is no JSON schema: $.type"),
        ({"checks": [{"json_schema": {"pattern": "("}}]}, "cases[0].checks[0].schema: is no JSON schema: $.pattern"),
        ({"checks": [{"numeric": float("nan")}]}, "cases[0].checks[0].expected: must be a finite number"),
        ({"checks": [{"exact": {"expected": "x", "icase": True}}]}, "cases[0].checks[0].icase: there is no such field"),
        ({"checks": [{"judge": " "}]}, "cases[0].checks[0].rubric: must say what a good answer is"),
        ({"checks": [{"latency": -1}]}, "cases[0].checks[0].max_seconds: must be a finite number, 0 or more"),
        ({"checks": [{"cost": {"max_usd": 1, "input_price": 2}}]}, "cases[0].checks[0]: give both input_price and"),
        ({"checks": [{"tool_calls": [{"nam": "x"}]}]}, "cases[0].checks[0].expected[0]: must have a name"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.SuiteError) as caught:
        made(**change)
    assert said in caught.value.message


def test_all_wrong_fields_are_named_at_once() -> None:
    cases = [{"id": "a", "prompt": "p"}, {"id": "a", "prompt": "p"}, {"id": "b"}, 5]
    with pytest.raises(errors.SuiteError) as caught:
        suite.from_document({"name": "x", "cases": cases, "case": 1}, "bad.yaml")
    lines = caught.value.message.split("\n  ")
    assert lines[0] == "bad.yaml cannot be used:"
    assert lines[1:] == [
        "case: there is no such field",
        "cases[1].id: 'a' is the id of cases[0] too; ids are unique",
        "cases[2]: give exactly one of prompt and messages",
        "cases[3]: must be a mapping with id, prompt and checks",
    ]


def test_many_wrong_fields_are_counted() -> None:
    with pytest.raises(errors.SuiteError, match=r"… and 80 more"):
        suite.from_document({"cases": [{"id": f"c{i}"} for i in range(100)]})


@pytest.mark.parametrize("content", ["cases: []", "{}", "cases: 5", "- [", "text", ""])
def test_a_file_without_cases_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(content)
    with pytest.raises(errors.SuiteError, match=r"suite\.yaml"):
        suite.load(file)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    (tmp_path / "broken.jsonl").write_text('{"id": "a"}\n{"id":\n')
    for name, said in (("absent.yaml", "cannot be read"), ("latin.yaml", "cannot be read"), ("broken.jsonl", "line 2")):
        with pytest.raises(errors.SuiteError, match=said):
            suite.load(tmp_path / name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["id", "prompt", "messages", "checks", "slices", "repeats", "sampling", "vars", "tools", "x"])


@given(case=st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_case_is_read_or_refused(case: dict[str, Any]) -> None:
    try:
        found = suite.from_document({"cases": [case]})
    except errors.SuiteError:
        return
    assert len(found.cases) == 1
