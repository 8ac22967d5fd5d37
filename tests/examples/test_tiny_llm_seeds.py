"""The main job learns something, whatever the seed: its model beats word frequencies and the untrained one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.examples import tiny_llm_jobs as jobs

pytestmark = pytest.mark.slow

SHORT = ("--lora-epochs", "1", "--prompts", "1")
"""Of what comes behind the training, which is as long as in `make run ARGS=--quick`."""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_trained_model_beats_the_baseline_and_the_untrained(checkout: Path, tmp_path: Path, seed: str) -> None:
    job = jobs.run(checkout, tmp_path, "--quick", *SHORT, "--seed", seed)
    assert job.loss("trained") < job.loss("unigram") < job.loss("untrained")
    gains = {(one["better"], one["worse"], one["subject"]): one for one in job.metrics["gains"]}
    for worse in ("unigram", "untrained"):
        gain = gains["trained", worse, "text"]
        assert gain["low"] > 0
        assert gain["nats"] == pytest.approx(job.loss(worse) - job.loss("trained"))
        assert f"trained beats {worse} by {gain['nats']:.3f} nats per token" in job.stdout
