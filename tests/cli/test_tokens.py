"""`mactl tokens`: every format, the gate's exit code, comparisons, and what is wrong in the call."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Mactl = Callable[..., Any]


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "hello world"}\n' * 20)
    return str(path)


def test_a_report_says_tokens_cost_and_where_the_price_is_from(mactl: Mactl, prompts: str) -> None:
    result = mactl("tokens", prompts, "--output-tokens", "100:200", "--at", "2026-11-01")
    assert result.code == 0
    for text in ("40, exact, by o200k_base", "20 of gpt-4o-mini", "USD at 90%", "genai-prices", "as of 2026-11-01"):
        assert text in result.out


def test_reports_are_json_yaml_and_markdown(mactl: Mactl, prompts: str) -> None:
    made = json.loads(mactl("tokens", prompts, "-o", "json").out)
    assert made["total"]["tokens"] == 40
    assert made["cost"]["low"] < made["cost"]["middle"] < made["cost"]["high"]
    assert yaml.safe_load(mactl("tokens", prompts, "-o", "yaml").out) == made
    assert "| tokens | 40, exact" in mactl("tokens", prompts, "-o", "markdown").out


def test_a_budget_decides_the_exit_code_by_the_upper_bound(mactl: Mactl, prompts: str) -> None:
    cost = json.loads(mactl("tokens", prompts, "-o", "json").out)["cost"]
    between = (cost["middle"] + cost["high"]) / 2
    over = mactl("tokens", prompts, "--budget", f"{between:.8f}usd")
    assert over.code == 3
    assert "over budget" in over.err
    assert mactl("tokens", prompts, "--budget", "1 EUR", "--rate", "EUR=0.5").code == 0
    assert mactl("tokens", prompts, "--budget", f"{cost['high']:.8f}eur", "--rate", "EUR=2").code == 3


def test_rows_are_filled_into_a_template(mactl: Mactl, tmp_path: Path, prompts: str) -> None:
    (tmp_path / "t.jinja").write_text("Say {{ prompt }}")
    made = json.loads(mactl("tokens", prompts, "--template", f"@{tmp_path}/t.jinja", "-o", "json", "--count-only").out)
    assert made["total"]["tokens"] == 60
    wrong = mactl("tokens", prompts, "--template", "{{ other }}", "--count-only")
    assert "20 rows" in wrong.out


def test_prompts_in_code_are_listed_with_their_holes(mactl: Mactl, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('P = f"Answer this question: {question}"\n')
    result = mactl("tokens", str(tmp_path / "a.py"), "--prompts", "--hole-tokens", "7")
    assert result.code == 0
    assert "{question}: 7 tokens assumed" in result.out
    given = mactl("tokens", str(tmp_path), "--prompts", "--value", "question=why", "-o", "json")
    assert json.loads(given.out)[0]["exact"] is True


def test_a_pipeline_shows_its_stages(mactl: Mactl, tmp_path: Path, prompts: str) -> None:
    stages = [
        {"name": "draft", "model": "gpt-4o-mini", "template": "Draft: {{ prompt }}"},
        {"name": "judge", "model": "gpt-4o", "template": "Judge: {{ previous }}", "batch": True},
    ]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"rows": prompts, "stages": stages}))
    result = mactl("tokens", "--pipeline", str(tmp_path / "p.yaml"))
    assert result.code == 0
    assert "draft: $" in result.out
    assert "judge: $" in result.out


def test_a_saved_report_is_compared_with(mactl: Mactl, tmp_path: Path, prompts: str) -> None:
    (tmp_path / "base.json").write_text(mactl("tokens", prompts, "-o", "json").out)
    Path(prompts).write_text('{"prompt": "hello"}\n')
    result = mactl("tokens", prompts, "--diff", str(tmp_path / "base.json"))
    assert result.code == 0
    assert "| **tokens in all** | 40 | 1 | -39 (-97.5%) |" in result.out


def test_standard_input_is_counted(mactl: Mactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello world"))
    assert json.loads(mactl("tokens", "-", "--count-only", "-o", "json").out)["total"]["tokens"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to count"),
        (("none.txt",), "no such file"),
        (("FILE", "--model", "gtp-4o"), "did you mean"),
        (("FILE", "--budget", "25"), "no amount of money"),
        (("FILE", "--currency", "XYZ"), "no rate is known"),
        (("FILE", "--calls", "-1"), "calls cannot be"),
        (("FILE", "--retries", "2"), "share"),
        (("FILE", "--output-tokens", "x"), "P50"),
        (("FILE", "--diff", "nowhere"), "no report"),
        (("FILE", "--prices", "none.yaml"), "cannot be read"),
        (("FILE", "--budget", "1usd", "--count-only"), "--budget needs the cost"),
        (("FILE", "--level", "2"), "level"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(mactl: Mactl, prompts: str, words: tuple[str, ...], said: str) -> None:
    result = mactl("tokens", *(prompts if word == "FILE" else word for word in words))
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err
