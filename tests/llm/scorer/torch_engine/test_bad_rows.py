"""A row that cannot be served says why, and harms nobody; an engine that cannot be opened says why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.llm.scorer import engine
from michelangelo.llm.scorer.engines.torch_engine import config

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no prompt": ({}, "exactly one of prompt, messages and token_ids is needed, not none"),
    "two prompts": ({"prompt": "a", "token_ids": (5,)}, "not prompt and token_ids"),
    "empty": ({"token_ids": ()}, "the prompt is empty"),
    "too long": ({"token_ids": (5,) * 200}, "the prompt has 200 tokens and the engine takes 111"),
    "out of range": ({"token_ids": (5, 256)}, "token 256 of the prompt is not between 0 and 255"),
    "another task": ({"prompt": "a", "task": "reward"}, "task 'reward' is none of this model's"),
    "no choices": ({"prompt": "a", "task": "choices"}, "choices: none are given"),
    "empty choice": ({"prompt": "a", "task": "choices", "choices": ("",)}, "choice 0 is empty"),
    "bad schema": ({"prompt": "a", "sampling": engine.Sampling(json_schema={"type": "nothing"})}, "json_schema is no"),
    "all at once": (
        {"prompt": "a", "sampling": engine.Sampling(max_tokens=0, temperature=-1, top_p=2, top_k=-1, stop=("",))},
        "max_tokens: 0 is less than 1; temperature: -1 is no number >= 0; top_p: 2 is not in (0, 1]; top_k: -1 is less "
        "than 0; stop: an empty text",
    ),
    "tools": ({"messages": ({"role": "user", "content": "a"},), "tools": ({"name": "f"},)}, "tools are not read"),
}


def test_bad_rows_come_back_with_their_error_and_harm_nobody(open_tiny: Callable[..., Any]) -> None:
    good: dict[str, Any] = {"token_ids": (9, 8, 7), "sampling": engine.Sampling(max_tokens=5)}
    alone = next(engine.run(open_tiny(), [engine.Request("good", **good)]))
    rows = [engine.Request("good", **good), *(engine.Request(name, **fields) for name, (fields, _) in BAD.items())]
    found = {c.id: c for c in engine.run(open_tiny(), rows)}
    for name, (_, message) in BAD.items():
        assert message in str(found[name].error), name
        assert found[name].finish_reason == "error"
        assert found[name].timing is not None
    assert found["good"].token_ids == alone.token_ids
    assert found["good"].error is None


def test_messages_without_a_chat_template_are_refused(open_tiny: Callable[..., Any]) -> None:
    opened = open_tiny()
    opened._loaded.tokenizer.chat_template = None
    (found,) = engine.run(opened, [engine.Request("r", messages=({"role": "user", "content": "a"},))])
    assert "messages need a chat template and the tokenizer has none" in str(found.error)


def test_a_model_without_a_tokenizer_takes_token_ids(
    save: Callable[..., Path], open_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    folder = save(tmp_path, "llama")
    for file in folder.glob("*token*"):
        file.unlink()
    opened = open_tiny(model=str(folder))
    sampling = engine.Sampling(max_tokens=3, ignores_eos=True)
    rows = [
        engine.Request("ids", token_ids=(5, 6), sampling=sampling),
        engine.Request("text", prompt="a", sampling=sampling),
    ]
    found = {c.id: c for c in engine.run(opened, rows)}
    assert len(found["ids"].token_ids) == 3
    assert found["ids"].text == ""
    assert "the model has no tokenizer" in str(found["text"].error)


def test_cancel_gives_back_blocks_and_what_was_said(open_tiny: Callable[..., Any]) -> None:
    opened = open_tiny()
    sampling = engine.Sampling(max_tokens=50, ignores_eos=True)
    for name in "ab":
        opened.submit(engine.Request(name, token_ids=(5, 6, 7), sampling=sampling))
    for _ in range(4):
        assert not opened.poll(0)
    opened.cancel("a")
    opened.cancel("nobody")
    (cancelled,) = opened.poll(0)
    assert (cancelled.id, cancelled.finish_reason, len(cancelled.token_ids)) == ("a", "cancelled", 4)
    opened.cancel("b")
    assert [c.id for c in opened.poll()] == ["b"]
    assert opened._tree.num_held == 0
    assert not opened.poll()


def test_an_id_in_flight_cannot_come_twice(open_tiny: Callable[..., Any]) -> None:
    opened = open_tiny()
    opened.submit(engine.Request("a", token_ids=(5,)))
    with pytest.raises(ValueError, match="'a' is in flight"):
        opened.submit(engine.Request("a", token_ids=(6,)))


def test_a_closed_engine_says_so(open_tiny: Callable[..., Any]) -> None:
    opened = open_tiny()
    opened.close()
    opened.close()
    with pytest.raises(errors.EngineError, match="is closed"):
        opened.poll()
    with pytest.raises(errors.EngineError, match="is closed"):
        opened.submit(engine.Request("a", token_ids=(5,)))


def test_an_output_ends_where_the_context_does(open_tiny: Callable[..., Any]) -> None:
    request = engine.Request("a", token_ids=(5,) * 100, sampling=engine.Sampling(max_tokens=500, ignores_eos=True))
    (found,) = engine.run(open_tiny(), [request])
    assert (found.output_tokens, found.finish_reason) == (12, "length")


def test_settings_name_all_problems_at_once(llama: Path) -> None:
    wrong = config.TorchEngineConfig(
        model=str(llama / "no"),
        tokenizer=str(llama / "no"),
        dtype="int3",  # type: ignore[arg-type]
        device="tpu",
        max_batch_tokens=2,
        max_sequences=9,
        block_tokens=-1,
        cache_bytes=5,
        cache_share=1.5,
        pooling="best",  # type: ignore[arg-type]
    )
    fields = {line.split(":")[0] for line in config.problems(wrong)}
    assert fields == {
        "model", "tokenizer", "dtype", "device", "max_batch_tokens", "block_tokens", "cache_share", "pooling"
    }  # fmt: skip
    with pytest.raises(errors.EngineError, match="cannot be opened"):
        config.check(wrong)
    assert not config.problems(config.TorchEngineConfig(model=str(llama)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_bytes": 1000}, "the cache has 1,000 bytes and two blocks of 4 tokens need 2,048"),
        ({"cache_bytes": 20_000}, "the cache holds 72 tokens, so one sequence of max_context \\(112\\) does not fit"),
        ({"max_context": 500}, "max_context: 500 is more than the 192 the model takes"),
    ],
)
def test_a_cache_too_small_for_a_sequence_is_refused(
    settings: dict[str, int], message: str, open_tiny: Callable[..., Any]
) -> None:
    with pytest.raises(errors.EngineError, match=message):
        open_tiny(**settings)


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("falcon", {}, "does not call its attention through Transformers' AttentionInterface"),
        ("t5", {"d_model": 32, "d_ff": 32, "num_layers": 1}, "no decoder-only language model"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(
    model_type: str,
    changes: dict[str, Any],
    message: str,
    save: Callable[..., Path],
    open_tiny: Callable[..., Any],
    tmp_path: Path,
) -> None:
    kind = "Seq2SeqLM" if model_type == "t5" else "CausalLM"
    folder = save(tmp_path, model_type, kind, **changes)
    with pytest.raises(errors.ModelError, match=message):
        open_tiny(model=str(folder))


def test_a_model_whose_attention_differs_is_found_out(open_tiny: Callable[..., Any]) -> None:
    opened = open_tiny()
    layers = opened._forward.cache.layers
    opened._forward._attention._cache = type(opened._forward.cache)(
        [dataclasses.replace(layer, window=3) for layer in layers], 60, 4, dtype=_float32(), device=_cpu()
    )
    with pytest.raises(errors.ModelError, match="its hidden states are off by"):
        opened._forward._check()


def _float32() -> Any:
    import torch

    return torch.float32


def _cpu() -> Any:
    import torch

    return torch.device("cpu")
