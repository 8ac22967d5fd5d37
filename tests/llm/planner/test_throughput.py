"""The time model's behaviour: what costs time, what saves it, and bounds that no setup passes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo.llm import model_shape
from michelangelo.llm.planner import communication, hardware, kernels, plan, throughput
from michelangelo.llm.training_setup import TrainingSetup

LLAMA = model_shape.load("llama-3.1-8b")
H100 = hardware.load("h100")
SETUPS = st.builds(
    TrainingSetup,
    method=st.sampled_from(["full", "lora", "qlora"]),
    objective=st.sampled_from(["pretrain", "sft", "dpo"]),
    micro_batch=st.integers(1, 64),
    sequence_length=st.sampled_from([128, 1024, 4096, 32768]),
    gradient_accumulation=st.integers(1, 16),
    num_gpus=st.sampled_from([1, 2, 8, 64]),
    sharding=st.sampled_from(["none", "zero1", "zero2", "zero3", "fsdp2"]),
    checkpointing=st.sampled_from(["none", "selective", "full"]),
    attention=st.sampled_from(["flash", "eager"]),
    cross_entropy=st.sampled_from(["plain", "chunked"]),
    optimizer=st.sampled_from(["adamw", "adamw_8bit", "sgd"]),
    precision=st.sampled_from(["bf16", "bf16_mixed"]),
    compiled=st.booleans(),
)
MACHINES = st.sampled_from(hardware.catalogue()).map(hardware.load)
MODELS = st.sampled_from(["llama-3.2-1b", "llama-3.1-8b", "mixtral-8x7b", "qwen3-8b", "gemma-2-9b", "gpt2"]).map(
    model_shape.load
)


def _rate(setup: TrainingSetup, **others: Any) -> float:
    return throughput.estimate(LLAMA, setup, H100, **others).tokens_per_second


@given(MODELS, SETUPS, MACHINES)
@settings(max_examples=150, deadline=None)
def test_an_estimate_is_positive_within_its_interval_and_below_the_peak(
    shape: Any, setup: TrainingSetup, machine: Any
) -> None:
    speed = throughput.estimate(shape, setup, machine)
    assert speed.low < speed.tokens_per_second_per_gpu < speed.high
    assert 0 < speed.mfu < 0.9
    assert speed.hfu >= speed.mfu * 0.999
    assert all(phase.seconds > 0 for phase in speed.phases)
    assert math.isclose(sum(phase.seconds for phase in speed.phases), speed.seconds_per_step)


@given(SETUPS, MACHINES)
@settings(max_examples=100, deadline=None)
def test_twice_as_many_gpus_of_a_node_are_never_slower_together(setup: TrainingSetup, machine: Any) -> None:
    rates = [throughput.estimate(LLAMA, setup.replace(num_gpus=gpus), machine).tokens_per_second for gpus in (2, 4, 8)]
    assert rates == sorted(rates)


@given(SETUPS, st.sampled_from(["h100", "h200", "b200", "a100-80gb", "mi300x"]).map(hardware.load))
@settings(max_examples=60, deadline=None)
def test_more_nodes_with_fast_networks_are_never_slower_together(setup: TrainingSetup, machine: Any) -> None:
    rates = [
        throughput.estimate(LLAMA, setup.replace(num_gpus=gpus), machine).tokens_per_second for gpus in (8, 16, 64, 256)
    ]
    assert rates == sorted(rates)


@given(SETUPS)
@settings(max_examples=60, deadline=None)
def test_computing_activations_again_costs_time(setup: TrainingSetup) -> None:
    rates = [_rate(setup.replace(checkpointing=kind)) for kind in ("full", "none")]
    assert rates[0] < rates[1]


@pytest.mark.parametrize(
    ("slower", "faster"),
    [
        ({"compiled": False}, {"compiled": True}),
        ({"attention": "eager"}, {"attention": "flash"}),
        ({"method": "full"}, {"method": "lora"}),
        ({"method": "qlora"}, {"method": "lora"}),
        ({"offload": "optimizer", "sharding": "fsdp2", "method": "full"}, {"sharding": "fsdp2", "method": "full"}),
        (
            {"offload": "parameters", "sharding": "fsdp2", "method": "full"},
            {"offload": "optimizer", "sharding": "fsdp2", "method": "full"},
        ),
        ({"optimizer": "adamw", "method": "full"}, {"optimizer": "adamw_8bit", "method": "full"}),
        ({"micro_batch": 1, "method": "full"}, {"micro_batch": 8, "method": "full"}),
        ({"activation_offload": True}, {"activation_offload": False}),
        ({"precision": "fp32", "method": "full"}, {"precision": "bf16", "method": "full"}),
    ],
)
def test_what_is_known_to_be_slower_is(slower: dict[str, Any], faster: dict[str, Any]) -> None:
    base = TrainingSetup(sequence_length=4096, micro_batch=2)
    assert _rate(base.replace(**slower)) < _rate(base.replace(**faster))


def test_a_slow_link_between_gpus_is_what_full_sharding_waits_for() -> None:
    setup = TrainingSetup(method="full", num_gpus=8, sharding="fsdp2", micro_batch=1, sequence_length=1024)
    consumer = throughput.estimate(LLAMA, setup, hardware.load("rtx-4090"))
    assert consumer.phase("communication") > consumer.seconds_per_step / 2
    many = throughput.estimate(LLAMA, setup.replace(micro_batch=64, sequence_length=8192), H100)
    assert many.phase("communication") < many.seconds_per_step / 10


def test_a_calibration_factor_scales_time_and_nothing_else() -> None:
    setup = TrainingSetup(sequence_length=2048)
    once = throughput.estimate(LLAMA, setup, H100)
    twice = throughput.estimate(LLAMA, setup, H100, time_factor=2.0)
    assert twice.seconds_per_step == pytest.approx(2 * once.seconds_per_step)
    assert twice.flops_per_token == once.flops_per_token


def test_small_models_wait_for_the_host() -> None:
    small = throughput.estimate(model_shape.load("gpt2"), TrainingSetup(method="full", sequence_length=128), H100)
    assert small.phase("launches") > 3 * small.phase("matmul")


def test_a_ring_moves_what_the_others_have() -> None:
    size, rates = 8e9, kernels.RATES
    rate = H100.link_bandwidth * rates.link
    assert communication.gather(size, 8, H100, rates) == pytest.approx(size * 7 / 8 / rate, rel=0.02)
    assert communication.gather(size, 1, H100, rates) == 0.0
    whole = communication.all_reduce(size, 8, H100, rates)
    assert whole == 2 * communication.gather(size, 8, H100, rates)


def test_both_answers_of_a_preference_pair_count() -> None:
    setup = TrainingSetup(objective="dpo", method="lora", micro_batch=2, sequence_length=1024)
    assert throughput.estimate(LLAMA, setup, H100).tokens_per_step == 2 * 2 * 1024


def test_every_phase_that_can_be_is_explained() -> None:
    from michelangelo.llm.planner import explain

    setup = TrainingSetup(
        method="full", num_gpus=16, sharding="fsdp2", offload="optimizer", activation_offload=True, attention="eager",
        tensor_parallel=2, sequence_length=512,
    )  # fmt: skip
    for shape, one in ((LLAMA, setup), (model_shape.load("gpt2"), TrainingSetup(method="qlora", sequence_length=64))):
        made = plan.make(shape, one, H100, plan.Assumptions())
        found = {line.name for line in explain.lines(shape, made) if line.topic == "time"}
        assert {phase.name for phase in made.throughput.phases} <= found
        assert all(line.formula and line.source for line in explain.lines(shape, made))
