"""The arithmetic of the engine behind HTTP: events cut anywhere, rates, pauses, prices."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.scorer.engines.http_engine import events, pacing
from michelangelo.llm.scorer.engines.http_engine.budget import Budget, Prices

_DATA = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1), max_size=5)


@given(_DATA, st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_events_are_the_same_however_they_are_cut(data: list[str], end: str, sizes: list[int]) -> None:
    raw = "".join(f": note{end}{end}data: {text}{end}{end}" for text in data).encode()
    chunks, start = [], 0
    for number in range(len(raw)):
        if start < len(raw):
            size = sizes[number % len(sizes)]
            chunks.append(raw[start : start + size])
            start += size
    assert list(events.data_of(chunks)) == data
    assert list(events.data_of([raw])) == data


@given(st.text(min_size=1, max_size=40), st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_pieces_make_the_whole(text: str, sizes: list[int]) -> None:
    assembler = events.Assembler()
    start = number = 0
    while start < len(text):
        piece = text[start : start + sizes[number % len(sizes)]]
        assert assembler.add(json.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]}))
        start += len(piece)
        number += 1
    with pytest.raises(events.CutOffError):
        assembler.document()
    assembler.add(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    assembler.add("[DONE]")
    assert assembler.is_done
    assert assembler.document()["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize("data", ["{", "7", '{"choices": [7]}', '{"choices": [{"delta": {"tool_calls": [7]}}]}'])
def test_what_is_no_piece_is_said(data: str) -> None:
    with pytest.raises(events.CutOffError):
        events.Assembler().add(data)


@given(
    st.integers(1, 600),
    st.lists(st.tuples(st.integers(0, 300), st.floats(0.0, 30.0)), min_size=1, max_size=60),
)
def test_a_rate_is_never_passed(per_minute: int, calls: list[tuple[int, float]]) -> None:
    """What is started within any minute, the last call left out, is a minute's worth at most."""
    rate = pacing.Rate(float(per_minute))
    now, started = 0.0, []
    for amount, idle in calls:
        now += idle + rate.delay(now + idle)
        rate.take(amount, now)
        started.append((now, amount))
    for first in range(len(started)):
        within = [amount for time, amount in started[first:] if time < started[first][0] + 60.0 - 1e-6]
        assert sum(within[:-1]) <= per_minute + 1e-6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("12", 12.0), ("", 0.0), ("soon", 0.0)],
)
def test_durations_of_headers(text: str, seconds: float) -> None:
    assert pacing.reset_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "3.5"}, 3.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
        ({"retry-after": "later"}, None),
        ({"retry-after": "-5"}, None),
    ],
)
def test_pauses_that_a_server_asks_for(headers: dict[str, str], pause: float | None) -> None:
    assert pacing.pause_asked(headers, 10.0) == pause


def test_cached_tokens_are_counted_once() -> None:
    prices = Prices(input=2.0, output=8.0, cached_input=0.5)
    assert prices.cost(prompt_tokens=1_000_000, cached_tokens=400_000, output_tokens=0) == pytest.approx(1.2 + 0.2)
    assert Prices(2.0, 8.0).cost(prompt_tokens=10, cached_tokens=10, output_tokens=1) == pytest.approx(28e-6)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 1.0)), max_size=30), st.floats(0.0, 10.0))
def test_what_is_spent_and_promised_stays_under_the_cap(calls: list[tuple[float, float]], cap: float) -> None:
    budget = Budget(cap)
    open_calls: list[tuple[float, float]] = []
    for most, share in calls:
        while not budget.take(most) and open_calls:
            budget.settle(*open_calls.pop())
        if budget.can_ever_fit(most) and not open_calls and budget.num_under_way == 0:
            assert budget.take(most)
        if budget.num_under_way > len(open_calls):
            open_calls.append((most, most * share))
        assert budget.spent_usd + budget.promised_usd <= cap + 1e-9
