"""The engine behind HTTP against a real server on loopback that limits, breaks, lies and dawdles. Nothing really waits:
the clock is a counter that sleeping moves."""

from __future__ import annotations

import dataclasses
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.llm.scorer import openai_server
from tests.llm.scorer.openai_server import Misfortune

from michelangelo import errors
from michelangelo.llm.scorer import engine as engines
from michelangelo.llm.scorer.engine import Completion, Request, Sampling
from michelangelo.llm.scorer.engines import stub
from michelangelo.llm.scorer.engines.http_engine import engine as http_engine
from michelangelo.llm.scorer.engines.http_engine.calls import Clock
from michelangelo.llm.scorer.engines.http_engine.config import HttpEngineConfig

KEY = "sk-very-secret-0123456789"


class Ticker:
    """A clock that stands still until somebody sleeps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
            self.slept.append(seconds)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now, self.sleep)


@dataclasses.dataclass
class Place:
    server: openai_server.Server
    ticker: Ticker
    open: Callable[..., http_engine.HttpEngine]

    def run(self, requests: list[Request], **options: Any) -> dict[str, Completion]:
        engine = self.open(**options)
        return {completion.id: completion for completion in engines.run(engine, requests)}


@pytest.fixture
def place() -> Iterator[Callable[..., Place]]:
    """A server that misbehaves as told, over the stub, and a way to open engines on it."""
    with_exit: list[Callable[[], object]] = []

    def make(misbehave: Callable[[str, Mapping[str, Any], int], Misfortune | None] | None = None) -> Place:
        ticker = Ticker()
        serving = openai_server.serving(stub.StubEngine(), misbehave)
        server = serving.__enter__()
        with_exit.append(lambda: serving.__exit__(None, None, None))

        def opened(**options: Any) -> http_engine.HttpEngine:
            environment = {"TEST_KEY": KEY}
            config = HttpEngineConfig(**{"base_url": server.base_url, "model": "stub", **options})
            engine = http_engine.HttpEngine(
                config, environment=environment, clock=ticker.clock, chance=random.Random(7)
            )
            with_exit.append(engine.close)
            return engine

        return Place(server, ticker, opened)

    yield make
    for leave in reversed(with_exit):
        leave()


def _first(count: int, misfortune: Misfortune) -> Callable[..., Misfortune | None]:
    return lambda path, body, number: misfortune if number < count else None


def _one(text: str = "hello", **fields: Any) -> Request:
    return Request("a", prompt=text, sampling=Sampling(**fields))


def test_answers_are_those_of_the_engine_behind_the_server(place: Callable[..., Place]) -> None:
    requests = [Request(str(n), prompt=f"number {n}", sampling=Sampling(max_tokens=9)) for n in range(40)]
    found = place().run(requests, max_concurrency=8)
    expected = {completion.id: completion for completion in engines.run(stub.StubEngine(), requests)}
    assert {i: c.text for i, c in found.items()} == {i: c.text for i, c in expected.items()}
    assert all(
        (c.prompt_tokens, c.output_tokens, c.finish_reason)
        == (expected[i].prompt_tokens, expected[i].output_tokens, expected[i].finish_reason)
        for i, c in found.items()
    )


@pytest.mark.parametrize("streams", [False, True])
def test_chats_with_tools_bring_calls_whole_or_in_pieces(place: Callable[..., Place], streams: bool) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    request = Request("a", messages=({"role": "user", "content": "rain?"},), tools=(tool,))
    found = place().run([request], streams=streams)["a"]
    (expected,) = engines.run(stub.StubEngine(), [request])
    assert found.error is None
    assert found.tool_calls == expected.tool_calls
    assert isinstance(json.loads(found.tool_calls[0]["function"]["arguments"])["city"], str)


def test_pieces_give_the_same_as_the_whole_and_the_time_of_the_first_token(place: Callable[..., Place]) -> None:
    here = place()
    requests = [
        _one(logprobs=2),
        Request("b", messages=({"role": "user", "content": "häßlich ✓"},), sampling=Sampling(logprobs=1)),
    ]
    whole, pieces = here.run(requests), here.run(requests, streams=True)
    for name in ("a", "b"):
        assert pieces[name].error is None
        assert dataclasses.replace(whole[name], timing=None) == dataclasses.replace(pieces[name], timing=None)
        assert (timing := pieces[name].timing) is not None
        assert timing.first_token is not None
        assert (timing := whole[name].timing) is not None
        assert timing.first_token is None


def test_alternatives_are_others_than_the_chosen_token(place: Callable[..., Place]) -> None:
    found = place().run([_one(logprobs=2)])["a"]
    (expected,) = engines.run(stub.StubEngine(), [_one(logprobs=2)])
    assert found.logprobs is not None
    assert expected.logprobs is not None
    assert [item.token for item in found.logprobs] == [item.token for item in expected.logprobs]
    assert all(item.token not in dict(item.top) and len(item.top) <= 2 for item in found.logprobs)


def test_too_many_requests_wait_as_long_as_the_server_asks(place: Callable[..., Place]) -> None:
    here = place(_first(2, Misfortune(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "7"})))
    found = here.run([_one()])["a"]
    assert found.error is None
    assert len(here.server.calls) == 3
    assert all(slept >= 7.0 for slept in here.ticker.slept[:1])
    assert here.ticker.now >= 1014.0


def test_a_date_in_retry_after_is_understood(place: Callable[..., Place]) -> None:
    date = "Thu, 01 Jan 1970 00:17:10 GMT"  # 1030 seconds after the epoch; the clock says 1000
    here = place(_first(1, Misfortune(503, headers={"Retry-After": date})))
    assert here.run([_one()])["a"].error is None
    assert 1030.0 <= here.ticker.now < 1032.0


@pytest.mark.parametrize(
    "misfortune",
    [
        Misfortune(408),
        Misfortune(409),
        Misfortune(500, b"<html>oops</html>", {"content-type": "text/html"}),
        Misfortune(502, b""),
        Misfortune(529),
        Misfortune(200, b'{"choices": [{"text": "half'),
        Misfortune(200, b'{"choices": [{"text": "whole"}]}', cut_after=12),
        Misfortune(200, b'{"choices": []}'),
        Misfortune(200, b'{"choices": [{"text": 7}]}'),
        Misfortune(200, b"[1, 2]"),
        Misfortune(200, b'{"error": {"message": "broken inside"}}'),
        Misfortune(cut_after=-1),
    ],
    ids=lambda m: f"{m.status}-{m.body[:12]!r}-{m.cut_after}",
)
def test_what_may_pass_is_tried_again(place: Callable[..., Place], misfortune: Misfortune) -> None:
    here = place(_first(2, misfortune))
    engine = here.open()
    (found,) = engines.run(engine, [_one()])
    assert found.error is None
    assert found.text
    assert len(here.server.calls) == 3
    assert engine.statistics.retries == 2


def test_waits_between_attempts_are_random_and_double(place: Callable[..., Place]) -> None:
    here = place(_first(99, Misfortune(500)))
    found = here.run([_one()], max_retries=5, retry_base_seconds=1.0, retry_cap_seconds=4.0)["a"]
    assert found.error is not None
    assert "500" in found.error
    assert "6 attempts" in found.error
    bounds = [1.0, 2.0, 4.0, 4.0, 4.0]
    assert len(here.ticker.slept) == 5
    assert all(0.0 <= slept <= bound for slept, bound in zip(here.ticker.slept, bounds, strict=True))
    assert len(set(here.ticker.slept)) == 5


def test_a_stream_that_is_cut_off_is_tried_again(place: Callable[..., Place]) -> None:
    frames = b'data: {"choices": [{"index": 0, "text": "half an ans"}]}\n\n'
    cut = Misfortune(200, frames, {"content-type": "text/event-stream"})
    here = place(_first(1, cut))
    found = here.run([_one()], streams=True)["a"]
    assert found.error is None
    assert not found.text.startswith("half")
    assert len(here.server.calls) == 2


def test_an_error_within_a_stream_is_tried_again_and_then_said(place: Callable[..., Place]) -> None:
    frames = b'data: {"error": {"message": "the worker died"}}\n\ndata: [DONE]\n\n'
    here = place(_first(99, Misfortune(200, frames, {"content-type": "text/event-stream"})))
    found = here.run([_one()], streams=True, max_retries=1)["a"]
    assert found.error is not None
    assert "the worker died" in found.error


def test_a_prompt_that_is_too_long_fails_its_row_only(place: Callable[..., Place]) -> None:
    said = b'{"error": {"message": "maximum context length is 8 tokens", "code": "context_length_exceeded"}}'
    here = place(lambda path, body, number: Misfortune(400, said) if "long" in body["prompt"] else None)
    found = here.run([Request("bad", prompt="long long"), Request("good", prompt="short")])
    assert found["bad"].error is not None
    assert "maximum context length is 8 tokens" in found["bad"].error
    assert found["good"].error is None
    assert len(here.server.calls) == 2


@pytest.mark.parametrize("status", [401, 402, 404, 307])
def test_what_every_row_would_meet_loses_the_engine(place: Callable[..., Place], status: int) -> None:
    said = f'{{"error": {{"message": "no: {KEY}"}}}}'.encode()
    engine = place(_first(99, Misfortune(status, said, {"location": "http://127.0.0.1:1/"}))).open(
        api_key_env="TEST_KEY"
    )
    engine.submit(_one())
    with pytest.raises(errors.EngineError, match=str(status)) as caught:
        engine.poll()
    assert KEY not in str(caught.value)
    with pytest.raises(errors.EngineError, match=str(status)):
        engine.submit(_one())


def test_a_used_up_quota_is_not_waited_for(place: Callable[..., Place]) -> None:
    said = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    here = place(_first(99, Misfortune(429, said)))
    engine = here.open()
    engine.submit(_one())
    with pytest.raises(errors.EngineError, match="quota"):
        engine.poll()
    assert len(here.server.calls) == 1


def test_a_server_that_is_not_there_loses_the_engine_after_all_attempts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = HttpEngineConfig(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", model="m", max_retries=3)
        ticker = Ticker()
        engine = http_engine.HttpEngine(config, clock=ticker.clock)
        engine.submit(_one())
        with pytest.raises(errors.EngineError, match=r"no connection .* after 4 attempts: start the server"):
            engine.poll()
        assert len(ticker.slept) == 3
        engine.close()


def test_a_slow_answer_times_out_and_is_tried_again(place: Callable[..., Place]) -> None:
    never = threading.Event()
    here = place(_first(1, Misfortune(hold=never)))
    found = here.run([_one()], request_seconds=0.05)["a"]
    never.set()
    assert found.error is None
    assert len(here.server.calls) == 2


def test_the_key_is_sent_and_never_said(place: Callable[..., Place]) -> None:
    said = f"Incorrect API key provided: {KEY}".encode()
    here = place(_first(1, Misfortune(400, said)))
    engine = here.open(api_key_env="TEST_KEY")
    (found,) = engines.run(engine, [_one()])
    assert here.server.calls[0][1]["authorization"] == f"Bearer {KEY}"
    assert found.error is not None
    assert "Incorrect API key provided: ***" in found.error
    assert KEY not in repr(engine) + repr(vars(engine)) + repr(found)


def test_a_key_that_is_not_there_is_said_before_anything_is_sent(tmp_path: Any) -> None:
    base = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(errors.EngineError, match="ABSENT_KEY is not set"):
        http_engine.HttpEngine(HttpEngineConfig(**base, api_key_env="ABSENT_KEY"), environment={})
    with pytest.raises(errors.EngineError, match="cannot be read"):
        http_engine.HttpEngine(HttpEngineConfig(**base, api_key_file=str(tmp_path / "none")))
    (tmp_path / "key").write_text("two\nlines")
    with pytest.raises(errors.EngineError, match="one line of ASCII"):
        http_engine.HttpEngine(HttpEngineConfig(**base, api_key_file=str(tmp_path / "key")))


def test_no_window_of_a_minute_sees_more_requests_than_allowed(place: Callable[..., Place]) -> None:
    times: list[float] = []

    def note(path: str, body: Mapping[str, Any], number: int) -> None:
        times.append(here.ticker.now)

    here = place(note)
    found = here.run(
        [_one(str(n)) if n < 0 else Request(str(n), prompt=str(n)) for n in range(30)],
        requests_per_minute=10.0,
        max_concurrency=1,
    )
    assert all(completion.error is None for completion in found.values())
    assert all(sum(start <= time < start + 59.999 for time in times) <= 10 for start in times)
    assert times[-1] - times[0] == pytest.approx(29 * 6.0)


def test_tokens_per_minute_are_settled_by_what_was_used(place: Callable[..., Place]) -> None:
    here = place()
    requests = [Request(str(n), prompt="x", sampling=Sampling(max_tokens=1000)) for n in range(11)]
    found = here.run(requests, tokens_per_minute=600.0, max_concurrency=1)
    used = [completion.prompt_tokens + completion.output_tokens for completion in found.values()]
    # Ten tokens a second; had the limit of 1,000 counted, it would have been 100 s for each.
    assert here.ticker.now - 1000.0 == pytest.approx(sum(used[:-1]) / 10.0)


def test_a_server_with_a_fixed_window_never_refuses_who_obeys_its_headers(place: Callable[..., Place]) -> None:
    window = {"begin": 1000.0, "left": 5}

    def limit(path: str, body: Mapping[str, Any], number: int) -> Misfortune | None:
        if here.ticker.now >= window["begin"] + 60.0:
            window.update(begin=here.ticker.now, left=5)
        if window["left"] <= 0:
            return Misfortune(429)
        window["left"] -= 1
        reset = window["begin"] + 60.0 - here.ticker.now
        answer = json.dumps({"choices": [{"text": "ok", "finish_reason": "stop"}]}).encode()
        headers = {"x-ratelimit-remaining-requests": str(window["left"]), "x-ratelimit-reset-requests": f"{reset}s"}
        return Misfortune(200, answer, headers)

    here = place(limit)
    engine = here.open(max_concurrency=1)
    found = list(engines.run(engine, [Request(str(n), prompt="x") for n in range(12)]))
    assert [completion.text for completion in found] == ["ok"] * 12
    assert engine.statistics.refused == 0
    assert here.ticker.now - 1000.0 == pytest.approx(120.0)


def test_fewer_calls_at_once_while_the_server_has_too_many(place: Callable[..., Place]) -> None:
    here = place(_first(3, Misfortune(429)))
    engine = here.open(max_concurrency=8)
    (found,) = engines.run(engine, [_one()])
    assert found.error is None
    # Three refusals, one after the other: 8 → 4 → 2 → 1, and a little more for the one that went well.
    assert engine._calls.concurrency.limit == 2
    assert engine.capacity == 8


def test_no_more_calls_at_once_than_set(place: Callable[..., Place]) -> None:
    here = place()
    here.run([Request(str(n), prompt=str(n)) for n in range(40)], max_concurrency=3)
    assert here.server.most_at_once <= 3


def test_the_budget_is_never_passed_and_the_rest_is_refused(place: Callable[..., Place]) -> None:
    here = place()
    prices = {"usd_per_million_input": 1000.0, "usd_per_million_output": 2000.0}
    engine = here.open(budget_usd=1.0, max_concurrency=4, **prices)
    requests = [Request(str(n), prompt="x" * 50, sampling=Sampling(max_tokens=24)) for n in range(60)]
    found = list(engines.run(engine, requests))
    served = [completion for completion in found if completion.error is None]
    costs = [completion.cost_usd or 0.0 for completion in served]
    assert 0 < len(served) < 60
    assert sum(costs) == pytest.approx(engine.spent_usd)
    assert sum(costs) <= 1.0
    assert all("budget" in (completion.error or "budget") for completion in found)
    assert len(here.server.calls) == len(served)
    for completion in served:
        expected = (completion.prompt_tokens * 1000.0 + completion.output_tokens * 2000.0) / 1e6
        assert completion.cost_usd == pytest.approx(expected)


def test_a_lost_answer_counts_at_its_upper_bound(place: Callable[..., Place]) -> None:
    here = place(_first(1, Misfortune(cut_after=-1)))
    engine = here.open(usd_per_million_input=1000.0, usd_per_million_output=1000.0)
    (found,) = engines.run(engine, [_one("x", max_tokens=100)])
    assert found.cost_usd is not None
    assert engine.spent_usd > found.cost_usd + 0.1


def test_a_budget_without_prices_is_refused() -> None:
    config = HttpEngineConfig(base_url="http://127.0.0.1:1/v1", model="m", budget_usd=1.0)
    with pytest.raises(errors.SettingsError, match="no price is known for m"):
        http_engine.HttpEngine(config)


def test_a_cancelled_request_comes_back_at_once_while_the_server_works(place: Callable[..., Place]) -> None:
    hold = threading.Event()
    arrived = threading.Event()

    def misbehave(path: str, body: Mapping[str, Any], number: int) -> Misfortune:
        arrived.set()
        return Misfortune(500, hold=hold)

    engine = place(misbehave).open()
    engine.submit(_one())
    assert arrived.wait(10)
    engine.cancel("a")
    (found,) = engine.poll()
    assert found.finish_reason == "cancelled"
    hold.set()
    assert engine.poll() == []


def test_a_longer_pause_than_allowed_fails_the_row(place: Callable[..., Place]) -> None:
    here = place(_first(1, Misfortune(429, headers={"retry-after": "86400"})))
    found = here.run([_one()])["a"]
    assert found.error is not None
    assert "pause of 86400 s" in found.error
    assert here.ticker.slept == []


def test_what_the_api_has_no_words_for_is_not_sent(place: Callable[..., Place]) -> None:
    here = place()
    chat = ({"role": "user", "content": "x"},)
    found = here.run(
        [
            Request("choices", messages=chat, task="choices", choices=("a",)),
            Request("surrogate", prompt="\ud800"),
            Request("tools", prompt="x", tools=({"name": "f"},)),
            Request("reward", prompt="x", task="reward"),
        ]
    )
    assert all(completion.error for completion in found.values())
    assert "surrogate" in (found["surrogate"].error or "")
    assert here.server.calls == []


def test_wrong_fields_are_told_together() -> None:
    with pytest.raises(ValueError) as caught:
        HttpEngineConfig.model_validate(
            {"base_url": "ftp://x", "model": "", "max_retries": -1, "headers": {"Authorization": "Bearer x"}, "odd": 1}
        )
    said = str(caught.value)
    assert all(name in said for name in ("base_url", "model", "max_retries", "headers", "odd"))
