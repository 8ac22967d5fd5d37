"""The tuner: what it takes for the best, what it learns from a try, and what it does where nothing fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from michelangelo import errors
from michelangelo.llm.bench import tiny, tuning
from michelangelo.llm.planner import calibration, hardware
from michelangelo.llm.training_setup import TrainingSetup

CPU = hardware.load("cpu")


def tried(rate: float, *, problem: str = "") -> tuning.Tried:
    return tuning.Tried(TrainingSetup(), 100.0, 1000, rate, 900, 0.1, problem)


def test_the_fastest_that_fits_is_the_best() -> None:
    tries = (tried(50.0), tried(0.0, problem="out of memory"), tried(80.0))
    assert tuning.Tuned("m", CPU, tries, 9, 2).best is tries[2]


def test_nothing_that_fits_is_an_error_with_ways_out() -> None:
    with pytest.raises(errors.DeviceMemoryError, match="none of the 2 tries fits on cpu; take shorter sequences"):
        tuning.Tuned("m", CPU, (tried(0.0, problem="out of memory"),) * 2, 9, 0).best  # noqa: B018 a property


def test_a_try_as_json_has_null_for_what_was_not_measured() -> None:
    shown = tried(0.0, problem="out of memory").to_dict()
    assert (shown["rate"], shown["problem"]) == (None, "out of memory")
    assert shown["planned_rate"] == 100.0


@pytest.mark.slow
def test_a_model_that_cannot_be_made_fails_each_try_and_teaches_nothing(tmp_path: Path) -> None:
    """The planner counts its parameters, and Transformers refuses its activation."""
    model = tiny.write(tmp_path / "model", hidden_act="no_such_function")
    heard: list[tuning.Tried] = []
    base = TrainingSetup(method="full", sequence_length=32, precision="fp32")
    file = tmp_path / calibration.FILE_NAME
    done = tuning.tune(str(model), base, calibration_file=file, device="cpu", tries=1, steps=1, report=heard.append)
    assert "no_such_function" in heard[0].problem
    assert done.observations == 0
    assert not file.exists()
    with pytest.raises(errors.DeviceMemoryError, match="none of the 1 tries"):
        done.plan()


def test_a_gpu_that_is_not_there_is_said_before_anything_is_tried(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="PyTorch sees no GPU"):
        tuning.tune(
            str(tiny.write(tmp_path)), TrainingSetup(), calibration_file=tmp_path / "calibration.json", device="cuda"
        )
