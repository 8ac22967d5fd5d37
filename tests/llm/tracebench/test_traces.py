"""Recordings from saved traces: OpenTelemetry in its forms, plain lines, and what they lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm.tracebench import answering

from michelangelo import errors
from michelangelo.llm.tracebench import otlp, spans, suite, traces
from michelangelo.llm.tracebench.recorder import Options
from michelangelo.llm.tracebench.recording import Recording

SUITE: dict[str, Any] = {
    "name": "capitals",
    "cases": [
        {"id": "france", "prompt": "Capital of  France?", "checks": [{"exact": "Paris"}]},
        {"id": "italy", "prompt": "Capital of Italy?", "checks": [{"exact": "Rome"}]},
    ],
}


def value(given: Any) -> dict[str, Any]:
    match given:
        case bool():
            return {"boolValue": given}
        case int():
            return {"intValue": str(given)}
        case float():
            return {"doubleValue": given}
        case list():
            return {"arrayValue": {"values": [value(one) for one in given]}}
        case dict():
            return {"kvlistValue": {"values": [{"key": k, "value": value(v)} for k, v in given.items()]}}
    return {"stringValue": given}


def attributes(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": value(one)} for name, one in given.items()]


def span(given: dict[str, Any], number: int = 1, **fields: Any) -> dict[str, Any]:
    times = {"startTimeUnixNano": str(number * 10**9), "endTimeUnixNano": str(number * 10**9 + 250_000_000)}
    operation = {"gen_ai.operation.name": "chat", **given}
    return {"spanId": f"{number:016x}", "name": "chat m", "attributes": attributes(operation), **times, **fields}


def document(*items: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(items)}]}]}


def messages(question: str, answer: str, *, as_text: bool) -> dict[str, Any]:
    given = {
        "gen_ai.input.messages": [
            {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
            {"role": "user", "parts": [{"type": "text", "content": question}]},
        ],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": answer}], "finish_reason": "stop"}
        ],
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 2,
    }
    return {name: json.dumps(one) if as_text and isinstance(one, list) else one for name, one in given.items()}


def recorded(tmp_path: Path, content: str, **changes: Any) -> Recording:
    file = tmp_path / "trace.json"
    file.write_text(content)
    return traces.record(suite.from_document({**SUITE, **changes}), file, Options(name="prod"), answering.NOW)


@pytest.mark.parametrize("as_text", [True, False])
def test_spans_of_today_are_found_by_their_question(tmp_path: Path, as_text: bool) -> None:
    first = span(messages("Capital of France?", "Paris", as_text=as_text))
    second = span(messages("Capital of Italy?", "Milan", as_text=as_text), 2)
    made = recorded(tmp_path, json.dumps(document(first, second)))
    assert [(r.answer.case, r.answer.text, r.passed) for r in made.rows] == [
        ("france", "Paris", True),
        ("italy", "Milan", False),
    ]
    answer = made.rows[0].answer
    assert (answer.prompt_tokens, answer.output_tokens, answer.latency_seconds) == (12, 2, 0.25)
    assert (made.header.source, made.header.engine, made.header.notes) == ("trace", "trace trace.json", ())


def test_spans_that_name_their_case_are_repeats_in_order_of_time(tmp_path: Path) -> None:
    items = [
        span({**messages("any", f"answer {n}", as_text=True), "tracebench.case.id": "italy"}, n) for n in (3, 1, 2)
    ]
    lines = "\n".join(json.dumps(document(one)) for one in items)
    made = recorded(tmp_path, lines)
    assert [(r.answer.repeat, r.answer.text) for r in made.rows] == [(0, "answer 1"), (1, "answer 2"), (2, "answer 3")]
    assert made.header.notes == ("1 cases of the suite are not in the trace: france",)


OLDER: dict[str, Any] = {
    "events of choices": {
        "events": [
            {"name": "gen_ai.user.message", "attributes": attributes({"content": "Capital of France?"})},
            {
                "name": "gen_ai.choice",
                "attributes": attributes({"index": 0, "message": {"role": "assistant", "content": "Paris"}}),
            },
        ]
    },
    "events of contents": {
        "events": [
            {"name": "gen_ai.content.prompt", "attributes": attributes({"gen_ai.prompt": "Capital of France?"})},
            {
                "name": "gen_ai.content.completion",
                "attributes": attributes({"gen_ai.completion": '[{"role": "assistant", "content": "Paris"}]'}),
            },
        ]
    },
    "an event of details": {
        "events": [
            {
                "name": "gen_ai.client.inference.operation.details",
                "attributes": attributes(messages("Capital of France?", "Paris", as_text=False)),
            }
        ]
    },
    "numbered attributes": {
        "attributes": attributes(
            {
                "gen_ai.request.model": "m",
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "Capital of France?",
                "gen_ai.completion.0.content": "Paris",
            }
        )
    },
}


@pytest.mark.parametrize("form", OLDER)
def test_contents_of_older_conventions_are_read(tmp_path: Path, form: str) -> None:
    made = recorded(tmp_path, json.dumps(document(span({}, **OLDER[form]))))
    assert [(row.answer.case, row.answer.text) for row in made.rows] == [("france", "Paris")]


def test_events_in_logs_belong_to_their_spans(tmp_path: Path) -> None:
    record = {
        "spanId": f"{1:016x}",
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": attributes(messages("Capital of France?", "Paris", as_text=False)),
    }
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    made = recorded(tmp_path, json.dumps(document(span({}))) + "\n" + json.dumps(logs))
    assert made.rows[0].answer.text == "Paris"


def test_tool_calls_and_errors_are_read() -> None:
    part = {"type": "tool_call", "id": "1", "name": "find", "arguments": {"city": "Rome"}}
    output = [{"role": "assistant", "parts": [part], "finish_reason": "tool_call"}]
    found, _ = otlp.spans([document(span({"gen_ai.output.messages": json.dumps(output)}))])
    exchange = spans.exchange(found[0])
    assert exchange.answer.tool_calls == ({"name": "find", "arguments": {"city": "Rome"}},)
    assert exchange.answer.finish_reason == "tool_call"
    failing = span({"error.type": "timeout"}, status={"code": 2, "message": "deadline exceeded"})
    exchange = spans.exchange(otlp.spans([document(failing)])[0][0])
    assert (exchange.answer.error, exchange.problem) == ("deadline exceeded", "")


def test_what_a_trace_lacks_is_counted_and_listed(tmp_path: Path) -> None:
    silent = span({"gen_ai.request.model": "m"}, 2)
    tool = span({"gen_ai.operation.name": "execute_tool"}, 3)
    stranger = span(messages("Capital of Norway?", "Oslo", as_text=True), 4)
    broken = {"spanId": "x", "attributes": [{"key": "n", "value": {"intValue": "many"}}]}
    good = span(messages("Capital of France?", "Paris", as_text=True))
    made = recorded(tmp_path, json.dumps(document(good, silent, tool, stranger, broken)))
    assert len(made.rows) == 1
    assert made.header.notes == (
        "1 spans are malformed: a span cannot be read: invalid literal for int() with base 10: 'many'",
        "1 spans are no calls of a model",
        "1 spans have no answer, it has no output messages: was the capture of contents on?: 0000000000000002",
        "1 answers of the trace belong to no case of the suite: 0000000000000004",
        "1 cases of the suite are not in the trace: italy",
    )


def test_a_question_that_two_cases_ask_belongs_to_none(tmp_path: Path) -> None:
    cases = [*SUITE["cases"], {"id": "twice", "prompt": "Capital of Italy?"}]
    content = document(
        span(messages("Capital of Italy?", "Rome", as_text=True)),
        span(messages("Capital of France?", "Paris", as_text=True), 2),
    )
    made = recorded(tmp_path, json.dumps(content), cases=cases)
    assert [row.answer.case for row in made.rows] == ["france"]


def test_plain_lines_are_answers(tmp_path: Path) -> None:
    lines = [
        {"id": "france", "output": "Paris", "latency_seconds": 0.5, "cost_usd": 0.01, "mean_logprob": -0.1},
        {"prompt": "Capital of Italy?", "text": "Rome"},
        {"case": "italy", "error": {"code": 503}},
        {"id": "france"},
        [1],
    ]
    content = "\n".join(json.dumps(line) for line in lines) + '\n{"id": "france", "text": "Pa'
    made = recorded(tmp_path, content)
    assert [(r.answer.case, r.answer.repeat, r.passed) for r in made.rows] == [
        ("france", 0, True),
        ("italy", 0, True),
        ("italy", 1, False),
    ]
    assert made.rows[0].answer.cost_usd == 0.01
    assert made.rows[2].answer.error == '{"code":503}'
    assert "1 lines are no JSON: line 6" in made.header.notes[0]
    assert made.header.notes[1].startswith("2 answers cannot be read: answer 4: it has none of text, output")


@pytest.mark.parametrize("content", ["", "hello", "{}", '{"resourceSpans": []}', '{"id": "x", "text": "y"}', "[]"])
def test_a_file_without_answers_to_the_suite_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(errors.SuiteError, match=r"trace\.json"):
        recorded(tmp_path, content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["key", "value", "stringValue", "parts", "content", "type", "kvlistValue", "message", "role"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["gen_ai.output.messages", "gen_ai.input.messages", "gen_ai.completion", "gen_ai.prompt", "gen_ai.choice"]
)


@given(given_attributes=st.dictionaries(NAMES, JSON), events=st.lists(st.tuples(NAMES, JSON), max_size=3), odd=JSON)
def test_any_span_is_read_or_counted(given_attributes: dict[str, Any], events: Any, odd: Any) -> None:
    item = {
        "attributes": [{"key": k, "value": v} for k, v in given_attributes.items()],
        "events": [{"name": name, "attributes": [{"key": "message", "value": v}]} for name, v in events],
    }
    found, problems = otlp.spans([document(item, odd), {"resourceSpans": odd}, {"resourceLogs": odd}])
    assert len(found) + len(problems) >= 1
    for one in found:
        assert isinstance(spans.exchange(one).answer.text, str)
