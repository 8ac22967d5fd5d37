"""`mactl llm bench` and `mactl llm tune`: experiments and tries on this machine's processor, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from michelangelo.llm.bench import tiny
from michelangelo.llm.finetune import config
from michelangelo.llm.planner import calibration

Mactl = Callable[..., Any]


def test_experiments_are_listed(mactl: Mactl) -> None:
    result = mactl("llm", "bench", "-o", "json")
    assert [entry["name"] for entry in json.loads(result.out)][:2] == ["attention", "offload"]


def test_unknown_experiment_is_named(mactl: Mactl) -> None:
    result = mactl("llm", "bench", "ofload")
    assert result.code == 2
    assert "did you mean offload" in result.err


@pytest.mark.slow
def test_tries_end_in_the_fastest_and_a_calibration(
    mactl: Mactl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MA_HOME", str(tmp_path / "home"))
    model = tiny.write(tmp_path / "model")
    words = ["llm", "tune", str(model), "--method", "full", "--precision", "fp32", "--sequence-length", "32"]
    result = mactl(*words, "--device", "cpu", "--tries", "2", "--steps", "1", "-o", "json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert result.err.count("tokens/s, planned") == len(report["tries"]) == 2
    assert report["best"]["rate"] == max(tried["rate"] for tried in report["tries"])
    # A plan that is off by more than four times is taken for one of something else.
    near = [tried for tried in report["tries"] if 0.25 <= tried["planned_rate"] / tried["rate"] <= 4.0]
    kept = calibration.load(tmp_path / "home" / "llm" / calibration.FILE_NAME).observations
    assert len(kept) == len(near) == report["observations"]
    assert all(one.hardware == "cpu" for one in kept)


@pytest.mark.slow
def test_the_fastest_is_printed_as_a_configuration(
    mactl: Mactl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MA_HOME", str(tmp_path / "home"))
    model = tiny.write(tmp_path / "model")
    words = ["llm", "tune", str(model), "--method", "lora", "--sequence-length", "32", "--device", "cpu"]
    result = mactl(*words, "--tries", "1", "--steps", "1", "-o", "config")
    assert result.code == 0, result.err
    chosen = config.parse(yaml.safe_load(result.out))
    assert (chosen.adapter.method, chosen.data.sequence_length) == ("lora", 32)


def test_unknown_model_is_named(mactl: Mactl) -> None:
    result = mactl("llm", "tune", "nosuch-model")
    assert result.code == 2
    assert "nosuch-model" in result.err
