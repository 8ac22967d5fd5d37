"""`mactl llm score`: options and files, a run and its report, a sweep, a look, and bad input all at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Mactl = Callable[..., Any]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"id": n, "city": f"City {n}"}) + "\n" for n in range(12)))
    return str(path)


@pytest.fixture
def words(rows: str, tmp_path: Path) -> list[str]:
    out = str(tmp_path / "out.jsonl")
    given = ["--input", rows, "--out", out, "--engine", "stub", "--runner", "thread"]
    return ["llm", "score", *given, "--template", "Tell of {{ city }}."]


def test_rows_are_scored_and_reported(mactl: Mactl, words: list[str], tmp_path: Path) -> None:
    result = mactl(*words)
    assert result.code == 0, result
    assert "12 scored, 0 failed, 0 scored again" in result.out
    assert "12 rows in" in result.err
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 12
    again = mactl(*words, "-o", "json", "--quiet")
    assert json.loads(again.out)["rows"]["scored"] == 12
    assert again.err == ""


def test_file_is_changed_by_options(mactl: Mactl, rows: str, tmp_path: Path) -> None:
    document = {
        "input": {"path": rows},
        "output": {"path": str(tmp_path / "file.jsonl")},
        "prompt": {"template": "{{ city }}"},
        "engine": {"kind": "stub"},
        "replicas": [{"runner": "thread"}],
    }
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    result = mactl("llm", "score", str(file), "--limit", "5", "--replicas", "1:2", "--max-tokens", "1", "-o", "yaml")
    assert result.code == 0, result
    assert yaml.safe_load(result.out)["rows"]["total"] == 5
    lines = [json.loads(line) for line in (tmp_path / "file.jsonl").read_text().splitlines()]
    assert [line["output_tokens"] for line in lines] == [1] * 5


def test_changed_job_is_refused_with_what_to_do(mactl: Mactl, words: list[str]) -> None:
    assert mactl(*words).code == 0
    result = mactl(*words, "--max-tokens", "3")
    assert result.code == 2
    assert "sampling.max_tokens was 256, is 3" in result.err
    assert "--fresh" in result.err
    assert mactl(*words, "--max-tokens", "3", "--fresh").code == 0


def test_all_wrong_fields_are_named_at_once(mactl: Mactl, rows: str, tmp_path: Path) -> None:
    result = mactl(
        "llm", "score", "--input", rows, "--out", str(tmp_path), "--engine", "stubb", "--template", "{{ x", "--set", "a"
    )
    assert result.code == 2
    assert "a: is no change PATH=VALUE" in result.err
    result = mactl("llm", "score", "--input", rows, "--out", str(tmp_path), "--engine", "stubb", "--template", "{{ x")
    assert result.code == 2
    for said in ("prompt.template: is no Jinja template", "engine.kind: 'stubb' is no engine", "is a folder"):
        assert said in result.err
    assert not list(tmp_path.glob("*.job"))


def test_sweep_finds_a_knee(mactl: Mactl, words: list[str], tmp_path: Path) -> None:
    result = mactl(*words, "--sweep", "--sweep-batches", "1,4,2", "--sweep-rows", "8", "-o", "json")
    assert result.code == 0, result
    swept = json.loads(result.out)
    assert [point["batch"] for point in swept["points"]] == [1, 2, 4]
    assert swept["knee"] in (1, 2, 4)
    assert "<svg" in Path(swept["report"]).read_text()
    assert not (tmp_path / "out.jsonl").exists()
    assert "knee at" in mactl(*words, "--sweep", "--sweep-rows", "4").out
    assert mactl(*words, "--sweep", "--sweep-batches", "0,x").code == 2


def test_dry_run_shows_prompts_and_writes_nothing(mactl: Mactl, words: list[str], tmp_path: Path) -> None:
    result = mactl(*words, "--dry-run")
    assert result.code == 0, result
    assert "Tell of City 0." in result.out
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["in.jsonl"]
