"""`mactl contexteval calibrate` and `eval`: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.llm.contexteval import calibrating

Mactl = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and its questions."""
    folder = tmp_path_factory.mktemp("gate")
    calibrating.make_corpus(folder)
    lines = [
        {"id": one.id, "question": one.text, "label": one.label, "quote": list(one.quotes)}
        for one in calibrating.asked()
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_calibrate_then_eval_then_ask(mactl: Mactl, folder: Path) -> None:
    corpus, questions = str(folder / "corpus"), str(folder / "questions.jsonl")
    fitted = mactl("contexteval", "calibrate", questions, "--corpus", corpus, "--risk", "10%")
    assert fitted.code == 0, fitted.err
    assert "unanswerable questions answered ≤ 10.0% with 95% confidence" in fitted.out
    assert "questions held out for eval" in fitted.err
    report = folder / "report.html"
    measured = mactl("contexteval", "eval", questions, "--corpus", corpus, "--probes", "3", "--report", str(report))
    assert measured.code == 0, measured.err
    assert "false_answer_rate" in measured.out
    assert "One fact changed: 3 of 3 probes right" in measured.out
    assert "<svg" in report.read_text()
    asked = mactl("contexteval", "ask", "Which river flows through Vienna?", "--corpus", corpus)
    assert (asked.code, asked.out) == (0, "Not in corpus\n")
    assert "false answers ≤ 10.0%" in asked.err


def test_a_promise_that_takes_more_questions_is_refused_before_one_is_asked(mactl: Mactl, folder: Path) -> None:
    result = mactl(
        "contexteval", "calibrate", str(folder / "questions.jsonl"), "--corpus", str(folder / "corpus"), "--risk", "1%"
    )
    assert result.code == 2
    assert "takes at least 346: label about" in result.err
    assert "asked" not in result.err
    assert not (folder / "corpus" / "gate.json").exists()


def test_eval_without_a_gate_says_how_to_make_one(mactl: Mactl, folder: Path) -> None:
    result = mactl("contexteval", "eval", str(folder / "questions.jsonl"), "--corpus", str(folder / "corpus"))
    assert result.code == 2
    assert "fit one with mactl contexteval calibrate" in result.err


def test_wrong_questions_are_all_named(mactl: Mactl, folder: Path) -> None:
    (folder / "wrong.jsonl").write_text('{"id": "a"}\n{"id": "b", "question": "Q?", "label": "maybe"}\n')
    result = mactl("contexteval", "calibrate", str(folder / "wrong.jsonl"), "--corpus", str(folder / "corpus"))
    assert result.code == 2
    assert "line 1" in result.err
    assert "line 2: label 'maybe'" in result.err
