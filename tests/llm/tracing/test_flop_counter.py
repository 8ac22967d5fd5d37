"""Closed forms of FLOPs against torch's counter on tiny models with eager attention, and the trap of SDPA on a CPU."""

from __future__ import annotations

from typing import Any

import pytest

from michelangelo.llm import model_shape
from michelangelo.llm.mfu import flops as closed
from michelangelo.llm.tracing import flops as traced
from michelangelo.llm.training_setup import TrainingSetup

TINY: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SETUP = TrainingSetup(method="full", micro_batch=2, sequence_length=128)
TOKENS = SETUP.micro_batch * SETUP.sequence_length


def _closed(config: dict[str, Any], setup: TrainingSetup) -> closed.Flops:
    return closed.per_token(model_shape.from_config(config), sequence_length=setup.sequence_length, setup=setup)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model_type": "qwen2"},
        {"model_type": "qwen3", "head_dim": 32},
        {"model_type": "gemma", "head_dim": 32, "tie_word_embeddings": True},
        {"model_type": "phi"},
        {"model_type": "phi3", "pad_token_id": 0},
        {"model_type": "gpt_neox", "num_key_value_heads": 4},
    ],
    ids=lambda changes: str(changes.get("model_type", "llama")),
)
def test_counter_agrees_exactly_with_six_n_and_twelve_l_h_s(changes: dict[str, Any]) -> None:
    config = {**TINY, **changes}

    assert traced.counted_step(config, SETUP) / TOKENS == _closed(config, SETUP).non_causal


def test_counter_agrees_on_what_checkpointing_computes_again() -> None:
    setup = SETUP.replace(checkpointing="full")
    counted = _closed(TINY, setup)

    again = traced.counted_step(TINY, setup) / TOKENS - counted.non_causal

    assert again == counted.recompute_matmul + counted.attention_forward_full


def test_counter_agrees_on_lora_but_for_the_first_input_that_needs_no_gradient() -> None:
    setup = SETUP.replace(method="lora", lora_rank=8)
    shape = model_shape.from_config(TINY)
    first = [p for p in shape.projections if p.name in ("q_proj", "k_proj", "v_proj")]
    unneeded = sum(2 * p.weights + 2 * 8 * p.inputs for p in first)

    assert traced.counted_step(TINY, setup) / TOKENS == _closed(TINY, setup).non_causal - unneeded


def test_counter_leaves_out_all_of_attention_with_sdpa_on_a_cpu() -> None:
    """The trap: 12 L h S FLOPs a token are missing, and nothing says so."""
    eager = traced.counted_step(TINY, SETUP)
    sdpa = traced.counted_step(TINY, SETUP, attention="sdpa")

    assert eager - sdpa == 12 * 2 * 64 * 128 * TOKENS
    assert sdpa / TOKENS == _closed(TINY, SETUP).matmul
