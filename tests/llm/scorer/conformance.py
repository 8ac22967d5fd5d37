"""What every engine must do, as functions of an engine; tests of each engine run them all.

An engine is opened once for many of them: each leaves nothing in flight. They ask only for what the engine's tasks say
it can do, so that one that cannot chat still answers for everything else.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from michelangelo import errors
from michelangelo.llm.scorer import engine as engines
from michelangelo.llm.scorer.engine import Completion, Engine, Request, Sampling

__all__ = ["CHECKS", "CLOSING_CHECKS", "Subject"]

_PROMPTS: Final = ("The with statement", "An object", "Names refer to", "x", "for i in range", "A class definition is")
_SCHEMA: Final = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"enum": ["yes", "no"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Subject:
    """An engine, and what is known of it beyond its interface.

    has_chat, has_schema, has_token_ids: else such rows must fail cleanly. ends_schema: an answer ends even where
    the model likes whitespace best, which JSON allows without end.
    """

    engine: Engine
    has_chat: bool = True
    has_schema: bool = True
    ends_schema: bool = True
    has_token_ids: bool = True
    has_first_token: bool = True
    tolerance: float = 1e-3
    """Of log-probabilities and embeddings, between batches."""


def _all(engine: Engine, requests: Sequence[Request]) -> dict[str, Completion]:
    found = {completion.id: completion for completion in engines.run(engine, requests)}
    assert set(found) == {request.id for request in requests}
    return found


def _one(engine: Engine, request: Request) -> Completion:
    return _all(engine, [request])[request.id]


def _prompts(**fields: Any) -> list[Request]:
    return [Request(str(n), prompt=text, sampling=Sampling(**fields)) for n, text in enumerate(_PROMPTS)]


def check_is_an_engine(subject: Subject) -> None:
    engine = subject.engine
    assert isinstance(engine, Engine)
    assert engine.name
    assert engine.tasks
    assert engine.capacity >= 1


def check_each_request_comes_back_once(subject: Subject) -> None:
    """More of them than are worth having in flight, all given at once."""
    engine = subject.engine
    count = min(engine.capacity + 3, 48)
    for n in range(count):
        engine.submit(Request(f"r{n}", prompt=_PROMPTS[n % 6], sampling=Sampling(max_tokens=2 + n % 5)))
    ids: list[str] = []
    while len(ids) < count:
        batch = engine.poll(60)
        assert batch
        ids += [completion.id for completion in batch]
    assert sorted(ids) == sorted(f"r{n}" for n in range(count))
    assert list(engine.poll(0)) == []
    assert list(engine.poll()) == []


def check_counts_and_reasons(subject: Subject) -> None:
    for completion in _all(subject.engine, _prompts(max_tokens=5)).values():
        assert completion.error is None
        assert completion.prompt_tokens >= 1
        assert 0 <= completion.cached_tokens <= completion.prompt_tokens
        assert 0 <= completion.output_tokens <= 5
        assert completion.finish_reason == ("length" if completion.output_tokens == 5 else "stop") or (
            completion.finish_reason == "stop" and completion.output_tokens == 5
        )
        assert completion.logprobs is None
        assert len(completion.token_ids) in (0, completion.output_tokens)


def check_the_end_is_ignored_on_demand(subject: Subject) -> None:
    for completion in _all(subject.engine, _prompts(max_tokens=12, ignores_eos=True)).values():
        assert completion.output_tokens == 12
        assert completion.finish_reason == "length"


def check_greedy_text_is_the_same_in_any_company(subject: Subject) -> None:
    requests = _prompts(max_tokens=8)
    together = _all(subject.engine, requests)
    reversed_ = _all(subject.engine, requests[::-1])
    alone = {request.id: _one(subject.engine, request) for request in requests}
    for request in requests:
        texts = {each[request.id].text for each in (together, reversed_, alone)}
        assert len(texts) == 1, texts


def check_a_seed_decides_a_sampled_text(subject: Subject) -> None:
    request = Request("s", prompt=_PROMPTS[0], sampling=Sampling(max_tokens=12, temperature=1.5, seed=11))
    others = _prompts(max_tokens=12, temperature=1.5, seed=5)
    first = _one(subject.engine, request)
    among = _all(subject.engine, [*others, request])["s"]
    assert first.text == among.text
    texts = {
        _one(subject.engine, replace(request, sampling=replace(request.sampling, seed=seed))).text for seed in range(6)
    }
    assert len(texts) > 1


def check_stop_texts_end_the_output_and_are_not_part_of_it(subject: Subject) -> None:
    whole = _one(subject.engine, Request("w", prompt=_PROMPTS[1], sampling=Sampling(max_tokens=12, ignores_eos=True)))
    assert len(whole.text) >= 3
    # A character that means the same whatever the tokens around it are; the stop begins at its first place.
    stop = next(c for c in reversed(whole.text) if c.isascii() and c.isalnum())
    cut = _one(
        subject.engine,
        Request("c", prompt=_PROMPTS[1], sampling=Sampling(max_tokens=12, ignores_eos=True, stop=(stop,))),
    )
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert 1 <= cut.output_tokens <= whole.output_tokens


def check_logprobs_are_those_of_the_tokens(subject: Subject) -> None:
    for count in (0, 2):
        found = _one(subject.engine, Request("l", prompt="An object", sampling=Sampling(max_tokens=4, logprobs=count)))
        assert found.error is None
        assert found.logprobs is not None
        assert len(found.logprobs) == found.output_tokens
        for item in found.logprobs:
            assert item.logprob <= 1e-6
            assert len(item.top) <= count
            values = [value for _, value in item.top]
            assert values == sorted(values, reverse=True)
            # Greedy: no other is likelier than the one that was taken.
            assert all(value <= item.logprob + subject.tolerance for value in values)
        if count:
            assert any(item.top for item in found.logprobs)


def check_a_schema_is_followed(subject: Subject) -> None:
    request = Request("j", prompt="Give JSON:", sampling=Sampling(max_tokens=120, json_schema=_SCHEMA))
    found = _one(subject.engine, request)
    if not subject.has_schema:
        assert found.error
        return
    assert found.error is None
    if found.finish_reason == "length" and not subject.ends_schema:
        assert found.text.strip().startswith("{")
        return
    document = json.loads(found.text)
    assert set(document) == {"a", "b"}
    assert document["a"] in range(10)
    assert document["b"] in ("yes", "no")


def check_chats(subject: Subject) -> None:
    messages = ({"role": "system", "content": "Be short."}, {"role": "user", "content": "What is a name?"})
    found = _one(subject.engine, Request("m", messages=messages, sampling=Sampling(max_tokens=4)))
    assert (found.error is None) == subject.has_chat
    if subject.has_chat:
        assert found.prompt_tokens > 2


def check_token_ids(subject: Subject) -> None:
    request = Request("t", token_ids=(5, 6, 7), sampling=Sampling(max_tokens=3, ignores_eos=True))
    found = _one(subject.engine, request)
    assert (found.error is None) == subject.has_token_ids
    if subject.has_token_ids:
        assert (found.prompt_tokens, found.output_tokens) == (3, 3)


def check_choices_are_scored(subject: Subject) -> None:
    request = Request("c", prompt="The answer is", task="choices", choices=(" yes", " no", " an object of a class"))
    found = _one(subject.engine, request)
    if "choices" not in subject.engine.tasks:
        assert found.error
        return
    assert found.error is None
    assert found.choice_logprobs is not None
    assert found.choice_tokens is not None
    assert len(found.choice_logprobs) == len(found.choice_tokens) == 3
    assert all(value < 0.0 and math.isfinite(value) for value in found.choice_logprobs)
    assert all(count >= 1 for count in found.choice_tokens)
    assert found.choice_tokens[2] > 1
    turned = _one(subject.engine, replace(request, choices=request.choices[::-1]))
    assert turned.choice_logprobs is not None
    assert turned.choice_logprobs[::-1] == pytest.approx(found.choice_logprobs, abs=subject.tolerance)


def check_embeddings_are_directions(subject: Subject) -> None:
    texts = ("a class is an object", "a class is an object", "for i in range")
    requests = [Request(str(n), prompt=text, task="embed") for n, text in enumerate(texts)]
    found = _all(subject.engine, requests)
    if "embed" not in subject.engine.tasks:
        assert all(completion.error for completion in found.values())
        return
    vectors = [found[str(n)].embedding for n in range(3)]
    assert all(vector is not None and math.hypot(*vector) == pytest.approx(1.0, abs=1e-3) for vector in vectors)
    assert vectors[0] == pytest.approx(vectors[1], abs=subject.tolerance)
    assert vectors[0] != pytest.approx(vectors[2], abs=subject.tolerance)


def check_a_bad_row_fails_alone(subject: Subject) -> None:
    engine = subject.engine
    good = Request("good", prompt=_PROMPTS[0], sampling=Sampling(max_tokens=4))
    before = _one(engine, good)
    bad = [
        Request("nothing"),
        Request("both", prompt="x", token_ids=(1,)),
        Request("tokens", prompt="x", sampling=Sampling(max_tokens=0)),
        Request("temperature", prompt="x", sampling=Sampling(temperature=-1.0)),
        Request("top_p", prompt="x", sampling=Sampling(top_p=0.0)),
        Request("choices", prompt="x", task="choices"),
        Request("messages", messages=()),
        Request("stop", prompt="x", sampling=Sampling(stop=("",))),
    ]
    found = _all(engine, [*bad[:3], good, *bad[3:]])
    for request in bad:
        error = found[request.id].error
        assert error, request.id
        assert "\n" not in error
        assert found[request.id].finish_reason == "error"
    assert found["good"].error is None
    assert found["good"].text == before.text


def check_a_cancelled_request_comes_back_as_such(subject: Subject) -> None:
    engine = subject.engine
    engine.submit(Request("long", prompt="x", sampling=Sampling(max_tokens=60, ignores_eos=True)))
    engine.submit(Request("short", prompt="x", sampling=Sampling(max_tokens=2)))
    engine.cancel("long")
    engine.cancel("never given")
    found: dict[str, Completion] = {}
    while len(found) < 2:
        found |= {completion.id: completion for completion in engine.poll(60)}
    assert found["long"].finish_reason == "cancelled"
    assert found["short"].finish_reason != "cancelled"
    assert found["short"].error is None
    assert list(engine.poll()) == []
    # Its id may be used again.
    assert _one(engine, Request("long", prompt="x", sampling=Sampling(max_tokens=2))).finish_reason != "cancelled"


def check_a_poll_without_time_comes_back(subject: Subject) -> None:
    engine = subject.engine
    engine.submit(Request("p", prompt="x", sampling=Sampling(max_tokens=40, ignores_eos=True)))
    found = list(engine.poll(0))
    while not found:
        found = list(engine.poll(60))
    assert [completion.id for completion in found] == ["p"]


def check_times_follow_each_other(subject: Subject) -> None:
    found = _all(subject.engine, _prompts(max_tokens=6, ignores_eos=True))
    for completion in found.values():
        timing = completion.timing
        assert timing is not None
        assert timing.submitted <= timing.finished
        if subject.has_first_token:
            assert timing.first_token is not None
            assert timing.submitted <= timing.first_token <= timing.finished
    failed = _one(subject.engine, Request("bad"))
    assert failed.timing is not None
    assert failed.timing.first_token is None


def check_requests_may_join_at_any_time(subject: Subject) -> None:
    engine = subject.engine
    lengths = itertools.cycle((3, 17, 6))
    requests = [
        Request(str(n), prompt=_PROMPTS[n % 6], sampling=Sampling(max_tokens=next(lengths), ignores_eos=True))
        for n in range(10)
    ]
    found: dict[str, Completion] = {}
    for request in requests:
        engine.submit(request)
        found |= {completion.id: completion for completion in engine.poll(0)}
    while len(found) < len(requests):
        found |= {completion.id: completion for completion in engine.poll(60)}
    assert all(found[request.id].output_tokens == request.sampling.max_tokens for request in requests)


def check_an_id_in_flight_cannot_be_given_again(subject: Subject) -> None:
    engine = subject.engine
    engine.submit(Request("twice", prompt="x", sampling=Sampling(max_tokens=8, ignores_eos=True)))
    with pytest.raises(ValueError, match="twice"):
        engine.submit(Request("twice", prompt="y"))
    found: list[Completion] = []
    while not found:
        found = list(engine.poll(60))
    assert [completion.id for completion in found] == ["twice"]


def check_closed_twice_it_takes_nothing_more(subject: Subject) -> None:
    engine = subject.engine
    engine.submit(Request("lost", prompt="x", sampling=Sampling(max_tokens=50, ignores_eos=True)))
    engine.close()
    engine.close()
    with pytest.raises(errors.EngineError):
        engine.submit(Request("a", prompt="x"))


CHECKS: Final[tuple[Callable[[Subject], None], ...]] = (
    check_is_an_engine,
    check_each_request_comes_back_once,
    check_counts_and_reasons,
    check_the_end_is_ignored_on_demand,
    check_greedy_text_is_the_same_in_any_company,
    check_a_seed_decides_a_sampled_text,
    check_stop_texts_end_the_output_and_are_not_part_of_it,
    check_logprobs_are_those_of_the_tokens,
    check_a_schema_is_followed,
    check_chats,
    check_token_ids,
    check_choices_are_scored,
    check_embeddings_are_directions,
    check_a_bad_row_fails_alone,
    check_a_cancelled_request_comes_back_as_such,
    check_a_poll_without_time_comes_back,
    check_times_follow_each_other,
    check_requests_may_join_at_any_time,
    check_an_id_in_flight_cannot_be_given_again,
)
CLOSING_CHECKS: Final[tuple[Callable[[Subject], None], ...]] = (check_closed_twice_it_takes_nothing_more,)
"""Each ends its engine."""
