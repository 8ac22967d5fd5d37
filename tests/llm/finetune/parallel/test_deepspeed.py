"""DeepSpeed's ZeRO does what one process does with the same batches, and compiles nothing for that."""

from __future__ import annotations

import os
import traceback
from typing import Any

import pytest
import torch
from tests.llm.finetune.parallel import cases
from tests.llm.finetune.parallel.cases import Case, Outcome
from tests.llm.finetune.parallel.groups import Group

pytestmark = [pytest.mark.usefixtures("_one_thread"), pytest.mark.slow]


_ADAPTERS: dict[str, Any] = {"adapter": {"method": "lora", "rank": 4}}
_WAYS: dict[str, Case] = {
    **{stage: Case({"parallel": {"sharding": stage}}) for stage in ("zero1", "zero2", "zero3")},
    **{
        f"{stage}, two passes": Case({"parallel": {"sharding": stage}}, passes=2)
        for stage in ("zero1", "zero2", "zero3")
    },
    "zero1, optimizer on the host": Case({"parallel": {"sharding": "zero1", "offload": "optimizer"}}),
    "zero2, optimizer on the host": Case({"parallel": {"sharding": "zero2", "offload": "optimizer"}}),
    "zero3, optimizer on the host": Case({"parallel": {"sharding": "zero3", "offload": "optimizer"}}),
    "zero3, parameters on the host": Case({"parallel": {"sharding": "zero3", "offload": "parameters"}}, passes=2),
    "zero2, adapters": Case({"parallel": {"sharding": "zero2"}, **_ADAPTERS}),
    "zero3, adapters": Case({"parallel": {"sharding": "zero3"}, **_ADAPTERS}),
    "zero2, bf16": Case({"parallel": {"sharding": "zero2"}}, precision="bf16_mixed"),
    "zero3, bf16": Case({"parallel": {"sharding": "zero3"}}, precision="bf16_mixed"),
}


def train_all(folder: str) -> dict[str, tuple[Outcome | None, dict[str, bool], str]]:
    """Each way, and whether its state can be loaded into another engine; what went wrong instead. In one launch, as
    each costs ten seconds; DeepSpeed is told that there is no GPU, and where nobody has compiled operators."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["TORCH_EXTENSIONS_DIR"] = folder
    found: dict[str, tuple[Outcome | None, dict[str, bool], str]] = {}
    for name, case in _WAYS.items():
        try:
            found[name] = cases.train(_by_deepspeed(case)), cases.reload(_by_deepspeed(case)), ""
        except (RuntimeError, AttributeError, ValueError, AssertionError, KeyError, TypeError):
            found[name] = None, {}, traceback.format_exc()  # it is alike in both processes
    return found


def _by_deepspeed(case: Case) -> Case:
    return case.replace(sections={**case.sections, "parallel": {**case.sections["parallel"], "engine": "deepspeed"}})


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[Outcome | None, dict[str, bool], str]]]:
    """By each of two processes, which do one way after the other."""
    extensions = tmp_path_factory.mktemp("extensions")
    group = Group(2, tmp_path_factory.mktemp("ways"), deadline_seconds=900.0)
    try:
        found = group.run(train_all, str(extensions))
    finally:
        group.close()
    assert list(extensions.iterdir()) == []
    return found


@pytest.mark.parametrize("way", _WAYS)
def test_every_way_does_what_one_process_does_and_goes_on_from_its_state(
    ways: list[dict[str, tuple[Outcome | None, dict[str, bool], str]]], way: str
) -> None:
    case = _WAYS[way]
    alone = {name: section for name, section in case.sections.items() if name != "parallel"}
    one = cases.train(case.replace(sections=alone))
    exact = case.precision == "fp32"
    for process in ways:
        found, reloaded, problem = process[way]
        assert found is not None, problem
        assert found.losses == pytest.approx(one.losses, abs=1e-4 if exact else 2e-2)
        assert found.norms == pytest.approx(one.norms, rel=1e-3 if exact else 5e-2)
        assert found.weights.keys() == one.weights.keys()
        for name, weight in found.weights.items():
            torch.testing.assert_close(
                weight, one.weights[name], rtol=1e-3 if exact else 2e-2, atol=1e-4 if exact else 1e-2
            )
        assert reloaded == {"model_state": True, "optimizer_state": True}
