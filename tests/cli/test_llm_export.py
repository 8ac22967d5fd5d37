"""`mactl llm export` from the command line: what it prints, and bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.llm.conftest import _one_thread, model_folder, tokenizer_folder  # noqa: F401 fixtures
from tests.llm.finetune import runs

from michelangelo.llm.finetune import running

Mactl = Callable[..., Any]


def test_run_is_exported(mactl: Mactl, model_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    running.finetune(runs.make_config(model_folder, runs.texts(tmp_path), tmp_path / "run"))
    result = mactl("llm", "export", str(tmp_path / "run"), "--to", str(tmp_path / "model"), "-o", "json")
    assert result.code == 0, result.err
    exported = json.loads(result.out)
    assert (exported["kind"], exported["step"]) == ("full", 8)
    assert (tmp_path / "model" / "model.safetensors").exists()
    again = mactl("llm", "export", str(tmp_path / "run"), "--to", str(tmp_path / "model"))
    assert again.code == 2
    assert "--force" in again.err


def test_relative_paths_of_a_run_are_those_from_where_it_ran(
    mactl: Mactl,
    model_folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the checkpoints, the model and its tokenizer."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    shutil.copytree(model_folder, here / "model")
    monkeypatch.chdir(here)
    config = runs.make_config(
        Path("model"),
        runs.texts(here),
        Path("run"),
        model={"tokenizer": "./model"},
        checkpoint={"folder": "kept"},
        adapter={"method": "lora", "rank": 4},
    )
    (here / "config.json").write_text(config.model_dump_json())
    trained = mactl("llm", "finetune", "config.json", "--quiet")
    assert trained.code == 0, trained.err
    monkeypatch.chdir(elsewhere)
    result = mactl("llm", "export", "../here/run", "--to", "exported", "-o", "json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["step"] == 8
    assert (elsewhere / "exported" / "model.safetensors").exists()


def test_folder_that_is_no_run_is_named(mactl: Mactl, tmp_path: Path) -> None:
    result = mactl("llm", "export", str(tmp_path), "--to", str(tmp_path / "to"))
    assert result.code == 2
    assert "is no folder of a run" in result.err


def test_damage_is_said(mactl: Mactl, model_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    running.finetune(runs.make_config(model_folder, runs.texts(tmp_path), tmp_path / "run"))
    torn = sorted((tmp_path / "run" / "checkpoints").glob("step-*/manifest.json"))
    torn[-1].write_bytes(b"torn")
    result = mactl("llm", "export", str(tmp_path / "run"), "--to", str(tmp_path / "model"))
    assert result.code == 0, result.err
    assert "full, step 6" in result.out
    assert f"{torn[-1].parent} is damaged" in result.err
    for manifest in torn[:-1]:
        manifest.unlink()
    result = mactl("llm", "export", str(tmp_path / "run"), "--to", str(tmp_path / "other"))
    assert result.code == 5
    assert "no whole checkpoint" in result.err
    assert not (tmp_path / "other").exists()


def test_help_shows_examples(mactl: Mactl) -> None:
    result = mactl("llm", "export", "--help")
    assert "mactl llm export run --to adapter --adapter-only --checkpoint 400" in result.out
