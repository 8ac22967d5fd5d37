"""Layers divided among processes give what whole layers give, alone and together with FSDP2; what cannot be divided is
said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.llm.finetune.parallel import cases
from tests.llm.finetune.parallel.cases import Case
from tests.llm.finetune.parallel.groups import Group
from tests.llm.finetune.parallel.test_strategies import assert_as_one

from michelangelo import errors

pytestmark = pytest.mark.usefixtures("_one_thread")

DIVIDED = {"parallel": {"tensor_parallel": 2}}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    # Norms of queries and keys are whole in each process, and see its heads only.
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 8},
    "phi3": {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]},
}


@pytest.mark.parametrize("model", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_two_processes_share_each_layer(pair: Group, model: dict[str, Any]) -> None:
    assert_as_one(pair, Case(DIVIDED, model=model, shares=1))


@pytest.mark.parametrize("precision", ["fp32", "bf16_mixed"])
def test_passes_add_up(pair: Group, precision: Any) -> None:
    tolerance = 2e-5 if precision == "fp32" else 3e-2
    assert_as_one(pair, Case(DIVIDED, precision=precision, shares=1, passes=2), tolerance)


def test_state_can_be_loaded(pair: Group) -> None:
    for found in pair.run(cases.reload, Case(DIVIDED, shares=1, precision="bf16_mixed")):
        assert found == {"model_state": True, "optimizer_state": True}


def test_each_process_holds_its_part_of_a_layer(pair: Group) -> None:
    one = cases.train(Case(shares=1))
    layers = sum(tensor.numel() for name, tensor in one.weights.items() if name.endswith("_proj.weight"))
    others = sum(tensor.numel() for tensor in one.weights.values()) - layers
    for outcome in pair.run(cases.train, Case(DIVIDED, shares=1)):
        assert outcome.bytes["weights"] == 4 * (layers // 2 + others)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["fsdp2", "zero1"])
@pytest.mark.parametrize("model", ["llama", "qwen3"])
def test_four_processes_share_layers_and_data(four: Group, model: str, sharding: str) -> None:
    parallel = {"tensor_parallel": 2, "sharding": sharding}
    assert_as_one(four, Case({"parallel": parallel}, model=ARCHITECTURES[model], passes=2))


def refusal(case: Case) -> str:
    """What a process says of a case that it cannot take."""
    try:
        cases.train(case)
    except errors.MichelangeloError as e:
        return e.message
    return ""


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case(DIVIDED, model={"num_key_value_heads": 1}), "2: does not divide num_key_value_heads 1"),
        (
            Case(DIVIDED, model={"model_type": "mixtral", "num_local_experts": 2}),
            "asks for moe_tp_experts, packed_colwise",
        ),
        (Case({**DIVIDED, "adapter": {"method": "lora"}}), "adapters are trained with sharding fsdp2 instead"),
        (Case({"parallel": {"tensor_parallel": 2, "offload": "optimizer"}}), "without tensor_parallel only"),
        (Case({"parallel": {"sharding": "fsdp2"}, "optimizer": {"name": "adamw_8bit"}}), "cannot be divided"),
        (Case({"parallel": {"offload": "optimizer"}}), "several workers need sharding"),
        (Case({"parallel": {"engine": "deepspeed"}}), "does zero1, zero2 and zero3, not none"),
    ],
)
def test_what_cannot_be_done_is_said(pair: Group, case: Case, said: str) -> None:
    for message in pair.run(refusal, case):
        assert said in message


def test_all_on_the_host_in_one_process() -> None:
    """It needs a group of processes, which is made for it and ended."""
    one = cases.train(Case(shares=1))
    other = cases.train(Case({"parallel": {"sharding": "fsdp2", "offload": "parameters"}}, shares=1))
    assert not torch.distributed.is_initialized()
    assert other.losses == pytest.approx(one.losses, rel=1e-5)
    for name, tensor in one.weights.items():
        torch.testing.assert_close(other.weights[name], tensor, rtol=1e-4, atol=1e-5)
