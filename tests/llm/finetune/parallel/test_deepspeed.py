"""DeepSpeed's ZeRO does what one process does with the same batches. The first run builds DeepSpeed's operators."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from tests.llm.finetune.parallel import cases
from tests.llm.finetune.parallel.cases import Case, Outcome
from tests.llm.finetune.parallel.groups import Group

pytestmark = [pytest.mark.usefixtures("_one_thread"), pytest.mark.slow]


def train(case: Case) -> Outcome:
    """In each process. DeepSpeed builds with the ninja beside Python, and is told that there is no GPU."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["DS_ACCELERATOR"] = "cpu"
    return cases.train(case)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero3"])
def test_deepspeed_does_what_one_process_does(tmp_path: Path, stage: str, passes: int) -> None:
    case = Case({"parallel": {"sharding": stage, "engine": "deepspeed"}}, passes=passes)
    one = cases.train(Case(shares=2, passes=passes))
    # Processes of its own: DeepSpeed remembers the first group of a process for ever.
    group = Group(2, tmp_path)
    try:
        outcomes = group.run(train, case)
    finally:
        group.close()
    for found in outcomes:
        assert found.losses == pytest.approx(one.losses, abs=1e-4)
        assert found.norms == pytest.approx(one.norms, rel=1e-3)
        for name, weight in found.weights.items():
            torch.testing.assert_close(weight, one.weights[name], rtol=1e-3, atol=1e-4)
