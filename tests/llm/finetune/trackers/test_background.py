"""The thread and the queue before a tracker: what is dropped, what is tried again, what is waited for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.llm.finetune import run_events

from michelangelo import errors
from michelangelo.llm.finetune import trackers
from michelangelo.llm.finetune.config import TrackerConfig
from michelangelo.llm.finetune.recording import Alert, Recorder, SinkError
from michelangelo.llm.finetune.trackers.background import BackgroundTracker, Limits
from michelangelo.llm.finetune.trackers.tracker_run import Outcome, Scalar


class NotebookRun:
    """A tracker in memory. It waits at `gate` before it takes metrics, and fails as often as it is told to."""

    def __init__(self, run_id: str = "first", failures: int = 0) -> None:
        self.run_id = run_id
        self.gate = threading.Event()
        self.gate.set()
        self.failures = failures
        self.steps: list[int] = []
        self.alerts: list[str] = []
        self.results: dict[str, Scalar] = {}
        self.outcome = ""

    def parameters(self, values: Mapping[str, Scalar]) -> None:
        if self.failures:
            self.failures -= 1
            raise SinkError("the notebook is closed")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.gate.wait()
        if "train/loss" in values:
            self.steps.append(step)

    def alert(self, step: int, kind: str, message: str) -> None:
        self.alerts.append(message)

    def summary(self, step: int, values: Mapping[str, Scalar]) -> None:
        self.results |= values

    def end(self, outcome: Outcome) -> None:
        self.outcome = outcome


class Opener:
    """Opens one run, and remembers what it was asked for."""

    def __init__(self, run: NotebookRun) -> None:
        self.run = run
        self.asked: list[tuple[str, int]] = []

    def __call__(self, run_id: str, step: int) -> NotebookRun:
        self.asked.append((run_id, step))
        return self.run


QUICK = Limits(pause_seconds=0.0)


def tracker(run: NotebookRun, folder: Path, limits: Limits = QUICK) -> BackgroundTracker:
    return BackgroundTracker("notebook", Opener(run), folder / "notebook.json", limits)


def test_a_slow_tracker_loses_the_oldest_steps_and_nothing_else(tmp_path: Path) -> None:
    run = NotebookRun()
    run.gate.clear()
    sink = tracker(run, tmp_path, Limits(max_queued=10))
    sink.receive(run_events.started())
    for step in range(1, 101):
        sink.receive(run_events.stepped(step))
        if step % 10 == 0:
            sink.receive(Alert(step, "Test", f"alert {step}"))
    sink.receive(run_events.ended(100))
    run.gate.set()
    sink.close()
    assert run.alerts == [f"alert {step}" for step in range(10, 101, 10)]
    assert run.outcome == "Succeeded"
    assert sink.num_dropped > 50
    assert run.results["dropped_steps"] == sink.num_dropped
    assert len(run.steps) + sink.num_dropped == 100
    assert run.steps == sorted(run.steps)


def test_a_failure_that_passes_is_tried_again(tmp_path: Path) -> None:
    run = NotebookRun(failures=2)
    sink = tracker(run, tmp_path)
    for event in run_events.whole_run():
        sink.receive(event)
    sink.close()
    assert run.steps == [1, 2, 3, 4, 5, 6]
    assert "dropped_steps" not in run.results


def test_a_failure_that_stays_is_told_once(tmp_path: Path) -> None:
    recorder = Recorder([tracker(NotebookRun(failures=99), tmp_path)])
    for event in run_events.whole_run():
        recorder.record(event)
    recorder.close()
    lost = [alert.message for alert in recorder.alerts if alert.kind == "SinkLost"]
    assert len(lost) == 1
    assert "the notebook is closed" in lost[0]


def test_a_tracker_that_hangs_is_left_after_a_bounded_time(tmp_path: Path) -> None:
    run = NotebookRun()
    run.gate.clear()
    sink = tracker(run, tmp_path, Limits(close_seconds=0.01))
    for event in run_events.whole_run():
        sink.receive(event)
    with pytest.raises(SinkError, match=r"were not delivered within 0\.01 s"):
        sink.close()
    run.gate.set()


def test_events_before_the_start_are_kept_for_it(tmp_path: Path) -> None:
    run = NotebookRun()
    sink = tracker(run, tmp_path)
    sink.receive(Alert(0, "BadRows", "3 rows are empty"))
    sink.receive(run_events.started())
    sink.receive(run_events.ended())
    sink.close()
    assert run.alerts == ["3 rows are empty"]


def test_a_run_without_an_end_is_a_failed_one(tmp_path: Path) -> None:
    run = NotebookRun()
    sink = tracker(run, tmp_path)
    sink.receive(run_events.started())
    sink.close()
    assert run.outcome == "Failed"


def test_nothing_is_opened_for_a_run_that_never_starts(tmp_path: Path) -> None:
    opener = Opener(NotebookRun())
    sink = BackgroundTracker("notebook", opener, tmp_path / "notebook.json")
    sink.close()
    assert opener.asked == []


def test_a_resumed_run_is_opened_by_its_former_name_and_a_new_one_is_not(tmp_path: Path) -> None:
    opener = Opener(NotebookRun("abc"))
    for step in (0, 4, 0):
        sink = BackgroundTracker("notebook", opener, tmp_path / "notebook.json")
        sink.receive(run_events.started(step))
        sink.close()
    assert opener.asked == [("", 0), ("abc", 4), ("", 0)]


@pytest.mark.parametrize("left", ["", "{}", "[]", "\x00"])
def test_a_damaged_memory_makes_a_new_run(tmp_path: Path, left: str) -> None:
    opener = Opener(NotebookRun("abc"))
    (tmp_path / "notebook.json").write_text(left)
    sink = BackgroundTracker("notebook", opener, tmp_path / "notebook.json")
    sink.receive(run_events.started(4))
    sink.close()
    assert opener.asked == [("", 4)]


@pytest.mark.parametrize(
    ("kind", "package"),
    [("mlflow", "mlflow"), ("comet", "comet_ml"), ("tensorboard", "tensorboard"), ("wandb", "wandb")],
)
def test_a_missing_package_is_said_before_training(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.SettingsError, match=r"pip install 'michelangelo-oss\[trackers\]'"):
        trackers.make(TrackerConfig.model_validate({"kind": kind}), tmp_path)
