"""The real vLLM behind our interface: the suite that every engine must pass, and the same tokens as Transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.llm.scorer import conformance
from tests.llm.scorer.conformance import Subject

from michelangelo import errors
from michelangelo.llm.scorer import engine as engines
from michelangelo.llm.scorer.engine import Engine, Request, Sampling
from michelangelo.llm.scorer.engines import opening

PROMPTS = (
    "The with statement is used to",
    "An object has",
    "x",
    "def f(a, b):\n    return",
    "Names refer to objects." * 8,
)


def _config(folder: Path, **changes: Any) -> opening.EngineConfig:
    fields = {"model": str(folder), "dtype": "float32", "max_sequences": 8, "max_context": 512, "compiles": False}
    return opening.parse({"kind": "vllm", "separate_process": False, **fields, **changes})


@pytest.fixture(scope="module")
def engine(model_folder: Path) -> Iterator[Engine]:
    engine = opening.open_engine(_config(model_folder))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of Transformers."""
    torch.set_num_threads(1)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(model_folder)


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_vllm(engine: Engine, check: Callable[[Subject], None]) -> None:
    check(Subject(engine))


def test_greedy_tokens_are_those_of_generate(engine: Engine, reference: tuple[Any, Any]) -> None:
    model, tokenizer = reference
    requests = [Request(str(n), prompt=text, sampling=Sampling(max_tokens=24)) for n, text in enumerate(PROMPTS)]
    found = {completion.id: completion for completion in engines.run(engine, requests)}
    for number, text in enumerate(PROMPTS):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            whole = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0]
        expected = whole[inputs["input_ids"].shape[1] :].tolist()
        assert list(found[str(number)].token_ids) == expected


def test_logprobs_and_choices_are_those_of_the_model(engine: Engine, reference: tuple[Any, Any]) -> None:
    model, tokenizer = reference
    prompt, choices = "The answer is", (" yes", " no", " an object")
    requests = [
        Request("l", prompt=prompt, sampling=Sampling(max_tokens=6, logprobs=3)),
        Request("c", prompt=prompt, task="choices", choices=choices),
    ]
    found = {completion.id: completion for completion in engines.run(engine, requests)}
    begin = tokenizer(prompt)["input_ids"]

    def logprobs(tokens: list[int]) -> torch.Tensor:
        """[position, word]: what the model says of the token after each."""
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([tokens])).logits[0], dim=-1)

    generated = list(found["l"].token_ids)
    table = logprobs(begin + generated)
    expected = [float(table[len(begin) - 1 + n, token]) for n, token in enumerate(generated)]
    assert found["l"].logprobs is not None
    assert [item.logprob for item in found["l"].logprobs] == pytest.approx(expected, abs=1e-3)
    sums = []
    for choice in choices:
        whole = tokenizer(prompt + choice)["input_ids"]
        table = logprobs(whole)
        sums.append(math.fsum(float(table[n - 1, whole[n]]) for n in range(len(begin), len(whole))))
    assert found["c"].choice_logprobs == pytest.approx(sums, abs=1e-3)


def test_a_shared_prefix_is_computed_once(engine: Engine) -> None:
    prompt = "A class definition is an executable statement. " * 25
    requests = [Request(str(n), prompt=prompt + str(n), sampling=Sampling(max_tokens=2)) for n in range(2)]
    found = [completion for request in requests for completion in engines.run(engine, [request])]
    assert found[1].cached_tokens > 0


def test_a_prompt_that_is_too_long_fails_its_row(engine: Engine) -> None:
    (found,) = engines.run(engine, [Request("long", token_ids=(5,) * 600)])
    assert found.error is not None
    assert "512" in found.error


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(errors.EngineError, match="cannot open"):
        opening.open_engine(_config(tmp_path))
    with pytest.raises(errors.EngineError, match="no odd_argument"):
        opening.open_engine(_config(tmp_path, arguments={"odd_argument": 1}))
