"""A search by a real Ray on this machine: trials that fail do not end it, and an interrupted one is continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.hpo import search
from michelangelo.llm.finetune.hpo.search import SearchOptions
from michelangelo.llm.finetune.hpo.space import Choice, LogUniform, Space

SPACE: Space = {"optimizer.learning_rate": LogUniform(1e-5, 1e-3), "adapter.rank": Choice((4, 16))}
PROGRAM = """
import sys
from tests.llm.finetune.hpo import test_search
test_search.program(sys.argv[1])
"""


@pytest.fixture(autouse=True)
def _ray_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def config(folder: Path) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "model": {"path": "tiny"},
            "data": {"train": [{"path": "rows.jsonl"}], "validation_share": 0.1},
            "output": str(folder / "search"),
        }
    )


def make_train(folder: Path, *, stuck_after: int = 0) -> Any:
    """A training whose loss is known: its distance from the rate 1e-4. Rank 16 diverges. It leaves a file per start;
    after `stuck_after` of them it does not come to an end."""

    def train(config: FinetuneConfig, sinks: Sequence[Any]) -> None:
        import math
        import time

        from michelangelo import errors
        from michelangelo.llm.finetune.recording import Evaluated

        name = config.output.rpartition("/")[2]
        (folder / f"start-{name}-{time.monotonic_ns()}").touch()
        if stuck_after and len(list(folder.glob("start-*"))) > stuck_after:
            time.sleep(600)
        if config.adapter.rank == 16:
            raise errors.DivergedError("the loss is nan from the first step on")
        for step in (1, 2):
            distance = abs(math.log10(config.optimizer.learning_rate) + 4.0)
            sinks[0].receive(Evaluated(step, 1.0 + distance / step, 64, True))

    return train


def program(folder: str) -> None:
    """Gets stuck in the third trial."""
    where = Path(folder)
    search.search(config(where), SPACE, num_trials=4, train=make_train(where, stuck_after=2))


@pytest.mark.slow
def test_a_search_finds_the_best_and_failures_are_rows_of_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search.search(
        config(tmp_path),
        SPACE,
        num_trials=3,
        options=SearchOptions(seed=1, num_concurrent=3),
        train=make_train(tmp_path),
    )
    assert sorted(one.name for one in found.trials) == ["000", "001", "002"]
    failed = [one for one in found.trials if one.state == "Failed"]
    assert {one.values["adapter.rank"] for one in failed} == {16}
    assert all(one.message == "the loss is nan from the first step on" for one in failed)
    done = [one for one in found.trials if one.state == "Succeeded"]
    assert found.best is done[0]
    assert [one.loss for one in done] == sorted(one.loss for one in done)
    assert (tmp_path / "search" / "best.yaml").exists()
    output = capsys.readouterr()
    assert output.out == ""
    assert "trial 3 of 3" in output.err
    with pytest.raises(errors.SettingsError, match="has a search of another configuration, space or seed"):
        search.search(config(tmp_path), SPACE, num_trials=3, options=SearchOptions(seed=2), train=make_train(tmp_path))


@pytest.mark.slow
def test_an_interrupted_search_is_continued_with_the_trials_that_are_missing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], start_new_session=True) as stuck:
        try:
            deadline = time.monotonic() + 300.0
            while len(list(tmp_path.glob("start-*"))) < 3:
                assert time.monotonic() < deadline
                assert stuck.poll() is None
                time.sleep(0.2)
        finally:
            os.killpg(stuck.pid, signal.SIGKILL)
    found = search.search(config(tmp_path), SPACE, num_trials=4, train=make_train(tmp_path))
    assert len(found.trials) == 4
    assert {one.state for one in found.trials} <= {"Succeeded", "Failed"}
    starts = [file.name.split("-")[1] for file in tmp_path.glob("start-*")]
    assert sorted(set(starts)) == ["000", "001", "002", "003"]
    assert len(starts) == 5


@pytest.mark.slow
def test_trials_that_are_worse_are_halted(tmp_path: Path) -> None:
    ranks: Space = {"optimizer.learning_rate": LogUniform(1e-6, 1e-2), "adapter.rank": Choice((4,))}

    def train(config: FinetuneConfig, sinks: Sequence[Any]) -> None:
        import math

        from michelangelo.llm.finetune.recording import Evaluated

        for step in range(1, 17):
            distance = abs(math.log10(config.optimizer.learning_rate) + 4.0)
            sinks[0].receive(Evaluated(step, 1.0 + distance / step**0.1, 64, True))

    settings = config(tmp_path)
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"max_steps": 16})})
    found = search.search(settings, ranks, num_trials=8, options=SearchOptions(scheduler="asha", seed=3), train=train)
    states = [one.state for one in found.trials]
    assert "Halted" in states
    assert "Succeeded" in states
    assert all(one.step < 16 for one in found.trials if one.state == "Halted")


def test_a_search_without_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="at least one trial"):
        search.search(config(tmp_path), SPACE, num_trials=0, train=make_train(tmp_path))
