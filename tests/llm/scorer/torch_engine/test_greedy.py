"""Greedy output is that of generate(), token for token: all architectures, however the sequences are batched."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.llm.scorer.torch_engine import tiny_models
from transformers import AutoModelForCausalLM

from michelangelo.llm.scorer import engine

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


SLOW = ("gemma3_text", "mixtral", "gpt_oss")


def _requests(count: int, *, longest: int, seed: int = 0) -> list[engine.Request]:
    """Prompts of many lengths; two of three begin alike."""
    source = random.Random(seed)
    shared = [source.randrange(3, 250) for _ in range(19)]
    found = []
    for number in range(count):
        own = [source.randrange(3, 250) for _ in range(source.randint(1, longest))]
        sampling = engine.Sampling(max_tokens=source.randint(1, 16))
        tokens = tuple([*shared, *own] if number % 3 else own)
        found.append(engine.Request(str(number), token_ids=tokens, sampling=sampling))
    return found


def _generated(folder: Path, requests: Sequence[engine.Request]) -> dict[str, tuple[int, ...]]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.eval()
    found = {}
    for request in requests:
        tokens = torch.tensor([request.token_ids])
        made = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=request.sampling.max_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        found[request.id] = tuple(made[0, tokens.shape[1] :].tolist())
    return found


def _joining_late(opened: engine.Engine, requests: Sequence[engine.Request]) -> dict[str, tuple[int, ...]]:
    found = {}
    for number, request in enumerate(requests):
        opened.submit(request)
        for completion in opened.poll(0) if number % 2 else ():
            found[completion.id] = completion.token_ids
    while len(found) < len(requests):
        found.update({completion.id: completion.token_ids for completion in opened.poll()})
    return found


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in tiny_models.ARCHITECTURES],
)
def test_greedy_is_generate_for_every_architecture(
    architecture: str, save: Callable[..., Path], open_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    folder = save(tmp_path, architecture, **tiny_models.ARCHITECTURES[architecture])
    requests = _requests(8, longest=40)
    expected = _generated(folder, requests)
    opened = open_tiny(model=str(folder), checks_model=True)
    assert _joining_late(opened, requests) == expected
    roomless = open_tiny(model=str(folder), cache_bytes=_bytes_of(opened, blocks=31))
    assert {c.id: c.token_ids for c in engine.run(roomless, requests)} == expected
    assert roomless.scheduler.num_preemptions > 0


def _bytes_of(opened: Any, blocks: int) -> int:
    """Of a cache with so many blocks."""
    pools = opened._forward.cache
    return (blocks + 1) * sum(int(pool[0].nbytes) for pool in [*pools.keys, *pools.values])


def test_greedy_without_shared_prefixes_is_the_same(llama: Path, open_tiny: Callable[..., Any]) -> None:
    requests = _requests(8, longest=30, seed=1)
    found = list(engine.run(open_tiny(reuses_prefixes=False), requests))
    assert {c.id: c.token_ids for c in found} == _generated(llama, requests)
    assert not any(c.cached_tokens for c in found)


def test_a_prompt_that_another_shares_is_computed_once(open_tiny: Callable[..., Any]) -> None:
    opened = open_tiny()
    prompt = tuple(range(10, 31))
    requests = [
        engine.Request(str(n), token_ids=(*prompt, 40 + n), sampling=engine.Sampling(max_tokens=3)) for n in range(3)
    ]
    found = {c.id: c.cached_tokens for c in engine.run(opened, requests)}
    assert found == {"0": 0, "1": 20, "2": 20}
    again = next(engine.run(opened, [requests[0]]))
    assert again.cached_tokens == 20


def test_the_end_token_ends_an_output_unless_it_is_ignored(open_tiny: Callable[..., Any]) -> None:
    def sampled(seed: int, **changes: Any) -> engine.Request:
        sampling = engine.Sampling(max_tokens=25, temperature=1.5, seed=seed, **changes)
        return engine.Request(str(seed), token_ids=(9, 8, 7), sampling=sampling)

    opened = open_tiny(max_sequences=48)
    ended = next(c for c in engine.run(opened, map(sampled, range(48))) if c.finish_reason == "stop")
    assert ended.token_ids[-1] == 2
    assert 2 not in ended.token_ids[:-1]
    (on,) = engine.run(open_tiny(), [sampled(int(ended.id), ignores_eos=True)])
    assert on.token_ids[: len(ended.token_ids)] == ended.token_ids
    assert (len(on.token_ids), on.finish_reason) == (25, "length")
