"""vLLM's own server of OpenAI's API through the engine behind HTTP: the suite that every engine must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.llm.scorer import conformance
from tests.llm.scorer.conformance import Subject

from michelangelo.llm.scorer import engine as engines
from michelangelo.llm.scorer.engine import Request, Sampling
from michelangelo.llm.scorer.engines import opening


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "pieces"])
def subject(request: pytest.FixtureRequest, server_url: str) -> Iterator[Subject]:
    fields = {"base_url": server_url, "model": "tiny", "max_concurrency": 8, "tasks": ["generate", "choices"]}
    engine = opening.open_engine(opening.parse({"kind": "openai", "streams": request.param, **fields}))
    yield Subject(engine, has_first_token=request.param)
    engine.close()


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_server(subject: Subject, check: Callable[[Subject], None]) -> None:
    check(subject)


def test_choices_are_cut_where_the_prompt_ends(subject: Subject) -> None:
    """What two halves of a choice say, one after the other, is what the whole says."""
    whole = Request("whole", prompt="The", task="choices", choices=(" answer is yes",))
    parts = [
        Request("begin", prompt="The", task="choices", choices=(" answer",)),
        Request("end", prompt="The answer", task="choices", choices=(" is yes",)),
    ]
    found = {completion.id: completion for completion in engines.run(subject.engine, [whole, *parts])}
    sums = {name: (found[name].choice_logprobs or (0.0,))[0] for name in found}
    counts = {name: (found[name].choice_tokens or (0,))[0] for name in found}
    assert counts["whole"] == counts["begin"] + counts["end"]
    assert sums["whole"] == pytest.approx(sums["begin"] + sums["end"], abs=1e-3)


def test_a_prompt_that_is_too_long_fails_its_row(subject: Subject) -> None:
    requests = [Request("long", token_ids=(5,) * 600), Request("good", prompt="x", sampling=Sampling(max_tokens=2))]
    found = {completion.id: completion for completion in engines.run(subject.engine, requests)}
    assert "512" in (found["long"].error or "")
    assert found["good"].error is None
