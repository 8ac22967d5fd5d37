"""The engine without a model: its answers are a function of the request alone, its faults come on demand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped,unused-ignore]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.scorer import engine as engines
from michelangelo.llm.scorer.engine import Request, Sampling
from michelangelo.llm.scorer.engines import schema_instance
from michelangelo.llm.scorer.engines.stub import StubConfig, StubEngine

_LEAVES = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "string"}, {"type": "number"}, {}]),
    st.builds(lambda values: {"enum": values}, st.lists(st.integers() | st.text(max_size=5), min_size=1, max_size=4)),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-1000, 1000),
        st.integers(0, 50),
    ),
    st.builds(
        lambda low, more: {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": low + more},
        st.integers(-1000, 1000),
        st.integers(1, 50),
    ),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 30),
        st.integers(0, 9),
    ),
)
SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda properties, extra: {
                "type": "object",
                "properties": properties,
                "required": sorted(properties)[:2],
                "additionalProperties": extra,
            },
            st.dictionaries(st.text(max_size=6), inner, max_size=4),
            st.booleans(),
        ),
        st.builds(
            lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
            inner,
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=12,
)


@settings(max_examples=40)
@given(SCHEMAS, st.text(max_size=8))
def test_a_value_made_for_a_schema_is_valid(schema: dict[str, Any], salt: str) -> None:
    value = schema_instance.make(schema, salt)
    jsonschema.Draft202012Validator(schema).validate(value)
    assert value == schema_instance.make(schema, salt)


def test_references_are_followed_and_recursion_ends() -> None:
    schema = {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["name", "next"],
            }
        },
        "$ref": "#/$defs/node",
    }
    jsonschema.validate(schema_instance.make(schema, "x"), schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "pattern": "a+"}, "pattern"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no whole number"),
        ({"$ref": "#/$defs/none"}, "does not hold"),
        ({"$ref": "#"}, "nests deeper"),
        ({"type": "colour"}, "colour"),
        ({"type": "array", "items": False, "minItems": 0, "prefixItems": [False]}, "allows nothing"),
    ],
)
def test_what_cannot_be_followed_fails_the_row(schema: dict[str, Any], said: str) -> None:
    request = Request("a", prompt="x", sampling=Sampling(json_schema=schema))
    (found,) = engines.run(StubEngine(), [request])
    assert found.error is not None
    assert said in found.error


def test_another_name_is_another_model() -> None:
    request = Request("a", prompt="x", sampling=Sampling(logprobs=0))
    first, again, other = (
        next(engines.run(StubEngine(StubConfig(name=name)), [request])) for name in ("one", "one", "two")
    )
    assert first.text == again.text
    assert first.logprobs == again.logprobs
    assert (first.text, first.logprobs) != (other.text, other.logprobs)


def test_texts_that_share_words_lie_close() -> None:
    texts = ("the cat sat on the mat", "the cat sat on a mat", "quantum field theory lecture notes")
    requests = [Request(str(n), prompt=text, task="embed") for n, text in enumerate(texts)]
    found = {completion.id: completion.embedding or () for completion in engines.run(StubEngine(), requests)}

    def cosine(a: str, b: str) -> float:
        return sum(x * y for x, y in zip(found[a], found[b], strict=True))

    assert cosine("0", "1") > 0.7 > 0.4 > abs(cosine("0", "2"))


def test_time_is_counted_in_steps() -> None:
    engine = StubEngine(StubConfig(step_seconds=0.5, latency_steps=3, tokens_per_step=2, capacity=1))
    requests = [Request(str(n), prompt="x", sampling=Sampling(max_tokens=8, ignores_eos=True)) for n in range(2)]
    for request in requests:
        engine.submit(request)
    found: dict[str, Any] = {}
    while len(found) < 2:
        found |= {completion.id: completion.timing for completion in engine.poll()}
    # Three steps of latency, then two tokens a step; the second waits for the first.
    assert (found["0"].submitted, found["0"].first_token, found["0"].finished) == (0.0, 2.0, 3.5)
    assert (found["1"].submitted, found["1"].first_token, found["1"].finished) == (0.0, 5.5, 7.0)


def test_faults_are_text_unless_they_are_asked_for() -> None:
    (found,) = engines.run(StubEngine(), [Request("a", prompt="[[stub die]] [[stub error]]")])
    assert found.error is None


def test_faults_come_on_demand(tmp_path: Path) -> None:
    engine = StubEngine(StubConfig(faults=True))
    once = tmp_path / "once"
    for name, prompt in {
        "bad": "[[stub error]]",
        "good": "hello",
        "hung": "[[stub hang]]",
        "once": f"[[stub error once={once}]]",
    }.items():
        engine.submit(Request(name, prompt=prompt))
    found: dict[str, Any] = {}
    while len(found) < 3:
        found |= {completion.id: completion for completion in engine.poll()}
    assert found["bad"].error
    assert found["once"].error
    assert found["good"].error is None
    assert list(engine.poll(0.01)) == []
    engine.cancel("hung")
    assert [completion.finish_reason for completion in engine.poll()] == ["cancelled"]
    engine.submit(Request("again", prompt=f"[[stub error once={once}]]"))
    assert [completion.error for completion in engine.poll()] == [None]
    engine.submit(Request("last", prompt="[[stub die]]"))
    with pytest.raises(errors.EngineError, match="died at request last"):
        engine.poll()
    with pytest.raises(errors.EngineError):
        engine.submit(Request("late", prompt="x"))


def test_kill_ends_the_process() -> None:
    program = (
        "from michelangelo.llm.scorer.engine import Request\n"
        "from michelangelo.llm.scorer.engines.stub import StubConfig, StubEngine\n"
        "engine = StubEngine(StubConfig(faults=True))\n"
        "engine.submit(Request('a', prompt='[[stub kill]]'))\n"
        "engine.poll()\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -signal.SIGKILL


def test_tools_are_called_with_arguments_of_their_schema() -> None:
    parameters = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    request = Request(
        "a", messages=({"role": "user", "content": "x"},), tools=({"name": "f", "parameters": parameters},)
    )
    (found,) = engines.run(StubEngine(), [request])
    (call,) = found.tool_calls
    assert call["function"]["name"] == "f"
    assert json.loads(call["function"]["arguments"])["n"] >= 1
