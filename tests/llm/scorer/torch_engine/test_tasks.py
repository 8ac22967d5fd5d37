"""Sampling, stops, log-probabilities, schemas, choices, embeddings and rewards, each against the model run plainly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from michelangelo.llm.scorer import engine

PROMPT = "The assert statement is a way to"


def _one(opened: engine.Engine, **fields: Any) -> engine.Completion:
    (found,) = engine.run(opened, [engine.Request("one", **fields)])
    assert found.error is None
    return found


@pytest.fixture(scope="module")
def plain(llama: Path) -> tuple[Any, Any]:
    model: Any = AutoModelForCausalLM.from_pretrained(llama)
    return model.eval(), AutoTokenizer.from_pretrained(llama)


def test_sampled_text_depends_on_its_request_alone(open_tiny: Callable[..., Any]) -> None:
    sampling = engine.Sampling(max_tokens=15, temperature=0.9, top_p=0.9, top_k=50, seed=5, ignores_eos=True)
    alone = _one(open_tiny(), prompt=PROMPT, sampling=sampling)
    others = [
        engine.Request(str(n), prompt=f"{n} {PROMPT}", sampling=engine.Sampling(max_tokens=9, temperature=1.0))
        for n in range(7)
    ]
    crowd = [*others[:4], engine.Request("it", prompt=PROMPT, sampling=sampling), *others[4:]]
    among = {c.id: c for c in engine.run(open_tiny(seed=3), crowd)}["it"]
    assert among.token_ids == alone.token_ids
    another = _one(open_tiny(), prompt=PROMPT, sampling=engine.Sampling(max_tokens=15, temperature=0.9, seed=6))
    assert another.token_ids != alone.token_ids


def test_top_k_of_one_and_a_tiny_top_p_are_greedy(open_tiny: Callable[..., Any]) -> None:
    opened = open_tiny()
    greedy = _one(opened, prompt=PROMPT, sampling=engine.Sampling(max_tokens=12)).token_ids
    plain = engine.Sampling(max_tokens=12, temperature=2.0, seed=1)
    for sampling in (dataclasses.replace(plain, top_k=1), dataclasses.replace(plain, top_p=1e-6)):
        assert _one(opened, prompt=PROMPT, sampling=sampling).token_ids == greedy


def test_logprobs_are_those_of_the_model(open_tiny: Callable[..., Any], plain: tuple[Any, Any]) -> None:
    model, tokenizer = plain
    found = _one(open_tiny(), prompt=PROMPT, sampling=engine.Sampling(max_tokens=5, logprobs=3))
    prompt = tokenizer(PROMPT)["input_ids"]
    with torch.inference_mode():
        whole = model(torch.tensor([[*prompt, *found.token_ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    assert found.logprobs is not None
    assert len(found.logprobs) == 5
    for place, (token, entry) in enumerate(zip(found.token_ids, found.logprobs, strict=True)):
        assert entry.logprob == pytest.approx(float(whole[place, token]), abs=1e-4)
        assert [value for _, value in entry.top] == pytest.approx(whole[place].topk(3).values.tolist(), abs=1e-4)
        assert entry.token == entry.top[0][0] == tokenizer.decode([token])


def test_a_stop_text_ends_the_output_and_is_not_in_it(open_tiny: Callable[..., Any]) -> None:
    opened = open_tiny()
    free = _one(opened, prompt=PROMPT, sampling=engine.Sampling(max_tokens=40, ignores_eos=True))
    stop = free.text[12:15]
    held = _one(opened, prompt=PROMPT, sampling=engine.Sampling(max_tokens=40, ignores_eos=True, stop=("zzz", stop)))
    assert held.text == free.text[: free.text.index(stop)]
    assert held.finish_reason == "stop"
    assert held.token_ids == free.token_ids[: len(held.token_ids)]
    assert len(held.token_ids) < 40


def test_a_schema_makes_json_of_it_and_logprobs_stay_the_models(open_tiny: Callable[..., Any]) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
        "required": ["ok", "kind"],
        "additionalProperties": False,
    }
    opened = open_tiny(max_context=160)
    requests = [
        engine.Request(
            str(n),
            prompt=PROMPT,
            sampling=engine.Sampling(max_tokens=80, temperature=t, json_schema=schema, logprobs=0),
        )
        for n, t in enumerate((0.0, 0.8))
    ]
    for found in engine.run(opened, requests):
        document = json.loads(found.text)
        assert set(document) == {"ok", "kind"}
        assert document["kind"] in ("a", "b")
        assert found.finish_reason == "stop"
        assert found.logprobs is not None
        assert min(entry.logprob for entry in found.logprobs) < -1


def test_choices_have_the_models_log_likelihood_and_share_the_prompt(
    open_tiny: Callable[..., Any], plain: tuple[Any, Any]
) -> None:
    model, tokenizer = plain
    choices = (" check", " write a longer one of many words", " x")
    opened = open_tiny(max_batch_tokens=16)
    found = _one(opened, prompt=PROMPT, task="choices", choices=choices)
    prompt = tokenizer(PROMPT)["input_ids"]
    for choice, logprob, count in zip(choices, found.choice_logprobs or (), found.choice_tokens or (), strict=True):
        whole = tokenizer(PROMPT + choice)["input_ids"]
        with torch.inference_mode():
            each = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        expected = sum(float(each[n - 1, whole[n]]) for n in range(len(prompt), len(whole)))
        assert logprob == pytest.approx(expected, abs=1e-3)
        assert count == len(whole) - len(prompt)
    assert opened._tree.num_held == 0


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_an_embedding_is_pooled_and_has_unit_length(
    pooling: str, open_tiny: Callable[..., Any], plain: tuple[Any, Any]
) -> None:
    model, tokenizer = plain
    found = _one(open_tiny(pooling=pooling, max_batch_tokens=8), prompt=PROMPT, task="embed")
    with torch.inference_mode():
        hidden = model.model(torch.tensor([tokenizer(PROMPT)["input_ids"]])).last_hidden_state[0]
    expected = hidden.mean(0) if pooling == "mean" else hidden[-1]
    assert found.embedding == pytest.approx((expected / expected.norm()).tolist(), abs=1e-5)
    assert found.details == {"pooling": pooling}


def test_a_reward_is_the_one_label_of_a_classifying_model(
    save: Callable[..., Path], open_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    folder = save(tmp_path, "llama", "SequenceClassification", num_labels=1)
    opened = open_tiny(model=str(folder), max_batch_tokens=8, checks_model=True)
    found = _one(opened, token_ids=tuple(range(20, 41)), task="reward")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        assert found.score == pytest.approx(float(model(torch.tensor([range(20, 41)])).logits[0, 0]), abs=1e-4)
    assert opened.tasks == {"reward", "embed"}


def test_messages_go_through_the_chat_template(open_tiny: Callable[..., Any], plain: tuple[Any, Any]) -> None:
    opened = open_tiny()
    messages = ({"role": "user", "content": "for what?"},)
    chat = _one(opened, messages=messages, sampling=engine.Sampling(max_tokens=6))
    text = _one(opened, prompt="<|user|>for what?<|assistant|>", sampling=engine.Sampling(max_tokens=6))
    assert chat.token_ids == text.token_ids
    assert chat.text == plain[1].decode(chat.token_ids, skip_special_tokens=True)


def test_timing_is_in_order_and_counts_are_right(open_tiny: Callable[..., Any]) -> None:
    found = _one(open_tiny(), token_ids=(5, 6, 7), sampling=engine.Sampling(max_tokens=4, ignores_eos=True))
    assert found.timing is not None
    assert found.timing.first_token is not None
    assert found.timing.submitted <= found.timing.first_token <= found.timing.finished
    assert (found.prompt_tokens, found.output_tokens, found.finish_reason) == (3, 4, "length")
