"""Every strategy for several processes does what one process does with the same batches: losses, norms, weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.llm.finetune.parallel import cases
from tests.llm.finetune.parallel.cases import Case, Outcome
from tests.llm.finetune.parallel.groups import Group

pytestmark = pytest.mark.usefixtures("_one_thread")

DIVIDED = ("fsdp2", "zero1", "zero2", "zero3")
STRATEGIES: dict[str, dict[str, Any]] = {
    "none": {"sharding": "none"},
    **{sharding: {"sharding": sharding} for sharding in DIVIDED},
    "fsdp2, optimizer on the host": {"sharding": "fsdp2", "offload": "optimizer"},
    "zero2, optimizer on the host": {"sharding": "zero2", "offload": "optimizer"},
    "fsdp2, all on the host": {"sharding": "fsdp2", "offload": "parameters"},
}
EVERY = pytest.mark.parametrize("parallel", STRATEGIES.values(), ids=STRATEGIES.keys())


@EVERY
def test_two_processes_do_what_one_does(pair: Group, parallel: dict[str, Any]) -> None:
    assert_as_one(pair, Case({"parallel": parallel}))


@EVERY
def test_passes_add_up(pair: Group, parallel: dict[str, Any]) -> None:
    assert_as_one(pair, Case({"parallel": parallel}, passes=3))


@EVERY
def test_adapters_on_frozen_weights_are_trained(pair: Group, parallel: dict[str, Any]) -> None:
    case = Case({"parallel": parallel, "adapter": {"method": "lora", "rank": 4}}, passes=2)
    one = assert_as_one(pair, case)
    assert all("lora_" in name for name in one.weights)


@EVERY
def test_bf16_weights_with_fp32_copies(pair: Group, parallel: dict[str, Any]) -> None:
    """Gradients of bf16 are rounded between passes, so the comparison is loose."""
    case = Case({"parallel": parallel}, precision="bf16_mixed", passes=2)
    one = assert_as_one(pair, case, tolerance=3e-2)
    assert any(name.startswith("copy.") for name in one.state_names)


@EVERY
def test_state_can_be_loaded(pair: Group, parallel: dict[str, Any]) -> None:
    for precision in ("fp32", "bf16_mixed"):
        for found in pair.run(cases.reload, Case({"parallel": parallel}, precision=precision)):
            assert found == {"model_state": True, "optimizer_state": True}


@EVERY
def test_a_process_with_nothing_to_learn_from_takes_part(pair: Group, parallel: dict[str, Any]) -> None:
    assert_as_one(pair, Case({"parallel": parallel}, padding_share=1))


@pytest.mark.parametrize("sharding", DIVIDED)
def test_tied_embeddings_are_divided_once(pair: Group, sharding: str) -> None:
    case = Case({"parallel": {"sharding": sharding}}, model={"tie_word_embeddings": True}, passes=2)
    one = assert_as_one(pair, case)
    assert "lm_head.weight" not in one.weights


@pytest.mark.parametrize("sharding", ["none", "zero1", "zero2"])
def test_weights_in_4_bits_keep_their_scales(pair: Group, sharding: str) -> None:
    case = Case(
        {"parallel": {"sharding": sharding}, "adapter": {"method": "qlora", "rank": 4}},
        model={"hidden_size": 64, "intermediate_size": 128},
        precision="bf16_mixed",
    )
    assert_as_one(pair, case, tolerance=3e-2)


def test_each_process_holds_its_share(pair: Group) -> None:
    """Weights 2 bytes, fp32 copies and two moments 12, divided by the number of processes: the planner's formula."""
    case = Case({"parallel": {"sharding": "fsdp2"}}, precision="bf16_mixed")
    one, two = cases.train(case.replace(sections={})), pair.run(cases.train, case)
    count = sum(tensor.numel() for tensor in one.weights.values())
    assert one.bytes["weights"] == 2 * count
    assert one.bytes["state"] == pytest.approx(12 * count, rel=1e-2)
    for outcome in two:
        assert outcome.bytes["weights"] == one.bytes["weights"] / 2
        assert outcome.bytes["state"] == pytest.approx(one.bytes["state"] / 2, rel=1e-2)


def assert_as_one(group: Group, case: Case, tolerance: float = 2e-5) -> Outcome:
    """What the single process did."""
    alone = {name: section for name, section in case.sections.items() if name != "parallel"}
    one = cases.train(case.replace(sections=alone))
    for outcome in group.run(cases.train, case):
        assert outcome.losses == pytest.approx(one.losses, rel=tolerance)
        assert outcome.norms == pytest.approx(one.norms, rel=10 * tolerance)
        assert min(one.norms) > case.max_grad_norm, "gradients are clipped"
        assert outcome.weights.keys() == one.weights.keys()
        for name, tensor in one.weights.items():
            torch.testing.assert_close(outcome.weights[name], tensor, rtol=tolerance, atol=20 * tolerance, msg=name)
    return one
