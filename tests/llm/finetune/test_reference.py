"""The reference of DPO, asked once before the first step: the same losses, no second model, kept beside the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.llm.finetune import runs

from michelangelo import errors
from michelangelo.llm.finetune import preference, reference, running
from michelangelo.llm.finetune.config import FinetuneConfig

pytestmark = pytest.mark.usefixtures("_one_thread")

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "rank": 4, "dropout": 0.1},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return runs.pairs(tmp_path, rows=11)


def make(model: Path, data: Path, output: Path, /, **sections: Any) -> FinetuneConfig:
    """Three passes over the data, the last batch of each half empty."""
    training = {"max_steps": 12, **sections.pop("training", {})}
    return runs.make_config(model, data, output, objective="dpo", training=training, **sections)


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_a_reference_that_is_asked_in_each_step(
    model_folder: Path, data: Path, tmp_path: Path, method: str
) -> None:
    terms = {"adapter": METHODS[method], "data": {"validation_share": 0.2}}
    asked = running.finetune(make(model_folder, data, tmp_path / "asked", **terms))
    known = running.finetune(
        make(model_folder, data, tmp_path / "known", preference={"precompute_reference": True}, **terms)
    )
    assert runs.steps(tmp_path / "known") == pytest.approx(runs.steps(tmp_path / "asked"), abs=1e-6)
    assert known.validation_loss == pytest.approx(asked.validation_loss, abs=1e-6)
    assert known.loss < 0.6


def test_full_tuning_keeps_no_second_model(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = make(model_folder, data, tmp_path, preference={"precompute_reference": True})
    loaded, objective = running.prepare_model(config, torch.device("cpu"))
    assert isinstance(objective, preference.PreferenceObjective)
    held = {
        id(module) for value in vars(objective).values() if isinstance(value, torch.nn.Module) for module in [value]
    }
    assert held == {id(loaded)}


@pytest.mark.slow
def test_a_run_that_goes_on_finds_what_was_asked(model_folder: Path, data: Path, tmp_path: Path) -> None:
    """In full tuning the model is not the reference any more then; a changed file shows that the answers are read."""
    terms: dict[str, Any] = {"preference": {"precompute_reference": True}}
    running.finetune(make(model_folder, data, tmp_path / "whole", **terms))
    running.finetune(make(model_folder, data, tmp_path / "parts", training={"max_steps": 5}, **terms))
    (kept,) = (tmp_path / "parts").glob("reference-*.safetensors")
    before = kept.stat()
    running.finetune(make(model_folder, data, tmp_path / "parts", **terms))
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    second = {step: loss for step, loss in runs.steps(tmp_path / "parts").items() if step > 5}
    assert second.keys() == set(range(6, 13))
    kept.write_bytes(b"torn")
    running.finetune(make(model_folder, data, tmp_path / "parts", training={"max_steps": 13}, **terms))
    assert kept.stat().st_size == before.st_size


@pytest.mark.slow
def test_another_model_and_other_data_are_asked_again(model_folder: Path, data: Path, tmp_path: Path) -> None:
    def files(data: Path, **sections: Any) -> set[str]:
        terms = {"training": {"max_steps": 1}, "checkpoint": {"resume": "never"}, **sections}
        asked = {"preference": {"precompute_reference": True}}
        running.finetune(make(model_folder, data, tmp_path / "run", **asked, **terms))
        return {path.name for path in (tmp_path / "run").glob("reference-*")}

    assert len(first := files(data)) == 1
    assert files(data, training={"max_steps": 2}, optimizer={"learning_rate": 1e-5}) == first
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    (tmp_path / "more").mkdir()
    other = runs.pairs(tmp_path / "more", rows=len(rows) + 1)
    assert len(second := files(other)) == 2
    assert second > first
    scratch = {"model": {"path": str(model_folder), "from_scratch": True}}
    assert len(files(data, **scratch)) == 3


def test_streamed_data_is_refused(model_folder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="precompute_reference: needs all rows beforehand"):
        make(model_folder, data, tmp_path, preference={"precompute_reference": True}, data={"streaming": True})


def test_an_answer_that_was_not_asked_for_is_an_error_and_not_a_guess(model_folder: Path, data: Path) -> None:
    class Once:
        """One batch."""

        def next(self) -> Any:
            from michelangelo.llm.finetune.batch import PreferenceBatch
            from michelangelo.llm.finetune.data import batching

            side = batching.make_batch([], 1, 4, 0)
            side.document_ids[:] = 0
            return PreferenceBatch(side, side)

        def next_epoch(self) -> None: ...

        def state(self) -> dict[str, Any]:
            return {}

        def restore(self, state: Any) -> None: ...

        def num_batches(self) -> int:
            return 1

    with pytest.raises(errors.DatasetError, match="the data changed since the run began"):
        reference.ReferencedBatches(Once(), {}).next()
