"""What `python flow.py` shows while it runs."""

from __future__ import annotations

import io

import pytest

from michelangelo.app.progress import PlainProgress
from michelangelo.app.progress_live import LiveProgress
from michelangelo.engine.surroundings import WaitObserver


@pytest.mark.parametrize("kind", [PlainProgress, LiveProgress])
def test_wait_for_another_run_is_shown_once(kind: type[PlainProgress | LiveProgress]) -> None:
    shown = io.StringIO()
    progress = kind(shown)
    assert isinstance(progress, WaitObserver)
    for number in range(3):
        progress.waiting(f"flow@1:1#{number}", "train", "waiting for run run-1, which computes the same")
    progress.waiting("flow@1:1#4", "train", "waiting for run run-2, which computes the same")
    assert shown.getvalue().count("run-1") == 1
    assert shown.getvalue().count("train: waiting for run run-2") == 1
