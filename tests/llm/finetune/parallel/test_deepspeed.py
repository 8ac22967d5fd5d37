"""DeepSpeed's ZeRO does what one process does with the same batches. The first run builds DeepSpeed's operators."""

from __future__ import annotations

import pytest
import torch
from tests.llm.finetune.parallel import cases
from tests.llm.finetune.parallel.cases import Case
from tests.llm.finetune.parallel.groups import Group

pytestmark = [pytest.mark.usefixtures("_one_thread"), pytest.mark.slow]


@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero3"])
def test_deepspeed_does_what_one_process_does(pair: Group, stage: str) -> None:
    case = Case({"parallel": {"sharding": stage, "engine": "deepspeed"}})
    one = cases.train(Case(shares=2))
    for found in pair.run(cases.train, case):
        assert found.losses == pytest.approx(one.losses, abs=1e-4)
        assert found.norms == pytest.approx(one.norms, rel=1e-3)
        for name, weight in found.weights.items():
            torch.testing.assert_close(weight, one.weights[name], rtol=1e-3, atol=1e-4)
