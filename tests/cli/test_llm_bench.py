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


def test_tries_end_in_the_fastest_and_a_calibration(
    mactl: Mactl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MA_HOME", str(tmp_path / "home"))
    model = tiny.write(tmp_path / "model")
    words = ["llm", "tune", str(model), "--method", "full", "--precision", "fp32", "--sequence-length", "32"]
    result = mactl(*words, "--device", "cpu", "--tries", "2", "--steps", "1", "-o", "config")
    assert result.code == 0, result.err
    chosen = config.parse(yaml.safe_load(result.out))
    assert chosen.adapter.method == "full"
    assert result.err.count("tokens/s, planned") == 2
    (first, second) = calibration.load(tmp_path / "home" / "llm" / calibration.FILE_NAME).observations
    assert first.hardware == second.hardware == "cpu"


def test_unknown_model_is_named(mactl: Mactl) -> None:
    result = mactl("llm", "tune", "nosuch-model")
    assert result.code == 2
    assert "nosuch-model" in result.err
