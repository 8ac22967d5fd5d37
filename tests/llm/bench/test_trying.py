"""One measurement in a process of its own: what it answers, and that nothing it does reaches who asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.llm.bench import tiny
from michelangelo.llm.finetune import batch_finder
from michelangelo.llm.training_setup import TrainingSetup

SETUP = TrainingSetup(method="full", objective="pretrain", sequence_length=32, micro_batch=2, precision="fp32")


def ask(model: Path | str, **changes: Any) -> dict[str, Any]:
    request = {"model": str(model), "setup": SETUP.to_dict(), "device": "cpu", "memory_cap_bytes": 0, **changes}
    done = subprocess.run(
        [sys.executable, "-m", "michelangelo.llm.bench.trying"],
        input=json.dumps({"steps": 1, "warm_up": 0, **request}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.slow
def test_a_try_says_speed_and_memory_and_a_cap_is_kept(tmp_path: Path) -> None:
    model = tiny.write(tmp_path / "model")
    answer = ask(model)
    assert answer["tokens_per_second"] > 0
    assert answer["allocated_bytes"] > 4 * 4 * 82_240, "weights, gradients and two moments in fp32"
    assert answer["setup"] == SETUP.to_dict()
    assert ask(model, memory_cap_bytes=answer["allocated_bytes"] - 1)["out_of_memory"]


@pytest.mark.slow
def test_what_is_no_model_is_an_answer(tmp_path: Path) -> None:
    assert "no-such-model" in ask(tmp_path / "no-such-model")["error"]


@pytest.mark.slow
def test_a_model_that_is_none_ends_the_search_for_a_batch_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(errors.LlmError, match=r"trying a batch of 2 failed: .*nothing-here"):
        batch_finder.try_apart(str(tmp_path / "nothing-here"), SETUP, device="cpu")
