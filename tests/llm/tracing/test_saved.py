"""Closed forms of what layers keep against what autograd keeps, on layers of real size that have no bytes.

Where they differ, and why, is in docs/llm/memory.md: falcon-7b has one key head, which Transformers' SDPA runs without
flash attention; Falcon-40b's mask is seen on a CPU only.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from michelangelo.llm import model_config, model_shape
from michelangelo.llm.planner import activations
from michelangelo.llm.tracing import saved
from michelangelo.llm.training_setup import TrainingSetup

FULL = TrainingSetup(method="full", sequence_length=2048)
LORA = TrainingSetup(method="lora", lora_rank=16, sequence_length=2048)
DENSE = (
    "llama-3.1-8b",
    "qwen2.5-7b",
    "qwen3-8b",
    "gemma-7b",
    "gemma-2-9b",
    "gemma-3-4b",
    "falcon-40b",
    "phi-3-mini",
    "pythia-6.9b",
    "opt-6.7b",
    "olmo-2-7b",
    "starcoder2-7b",
)
MIXTURES = ("mixtral-8x7b", "qwen3-30b-a3b", "qwen1.5-moe-a2.7b", "olmoe-1b-7b")


def _config(name: str) -> dict[str, Any]:
    entries = json.loads((model_shape._CATALOGUE).read_text())["models"]
    config: dict[str, Any] = entries[name]["config"]
    return config


def _compare(name: str, setup: TrainingSetup, tolerance: float) -> None:
    shape = model_shape.load(name)
    traced = saved.measure_slice(_config(name), setup)
    closed = activations.kept_by_layers(shape, setup) * (1 / shape.num_layers)

    assert closed.total == pytest.approx(traced.layer_total, rel=tolerance)
    for kind in activations.KINDS:
        assert getattr(closed, kind) == pytest.approx(traced.per_layer[kind], rel=0.06, abs=16)


@pytest.mark.parametrize("name", [*DENSE, *MIXTURES])
def test_closed_form_of_full_tuning_agrees_with_what_a_layer_keeps(name: str) -> None:
    _compare(name, FULL, 0.02 if name == "falcon-40b" else 0.001)


@pytest.mark.parametrize("name", DENSE)
def test_closed_form_of_lora_agrees_with_what_a_layer_keeps(name: str) -> None:
    _compare(name, LORA, 0.02 if name == "falcon-40b" else 0.001)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b"])
def test_closed_form_of_some_adapters_agrees_with_what_a_layer_keeps(name: str) -> None:
    _compare(name, LORA.replace(lora_targets=("q_proj", "v_proj")), 0.001)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-2-9b", "phi-3-mini", "mixtral-8x7b"])
def test_closed_form_of_eager_attention_agrees_with_what_a_layer_keeps(name: str) -> None:
    _compare(name, FULL.replace(attention="eager"), 0.001)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-2-9b", "mixtral-8x7b"])
def test_checkpointing_keeps_the_input_of_a_layer_and_nothing_else(name: str) -> None:
    setup = FULL.replace(checkpointing="full")

    traced = saved.measure_slice(_config(name), setup)

    assert traced.layer_total == 2 * model_shape.load(name).hidden_size
    _compare(name, setup, 0.0)


def test_closed_form_in_fp32_agrees_with_what_a_layer_keeps() -> None:
    _compare("llama-3.1-8b", FULL.replace(precision="fp32"), 0.001)


def test_a_layer_of_70_billion_is_traced_without_memory_and_scales_to_depth() -> None:
    shape = model_shape.load("llama-3.1-70b")
    traced = saved.measure_slice(_config("llama-3.1-70b"), FULL.replace(micro_batch=4, sequence_length=8192))

    closed = activations.kept_by_layers(shape, FULL).total + activations.ends_bytes(shape, FULL)

    assert traced.scaled(80) == pytest.approx(closed, rel=0.002)


def test_every_dense_architecture_of_the_closed_forms_is_known_by_name() -> None:
    assert {model_shape.load(name).architecture for name in (*DENSE, *MIXTURES)} <= set(model_config.architectures())
