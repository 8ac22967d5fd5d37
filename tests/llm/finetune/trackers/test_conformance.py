"""Every tracker holds what was recorded, read back with its own library; continues a resumed run; and is only lost, not
waited for, where nobody answers."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.llm.finetune import run_events
from tests.llm.finetune.trackers import readers
from tests.llm.finetune.trackers.readers import Found

from michelangelo.llm.finetune import trackers
from michelangelo.llm.finetune.config import TrackerConfig
from michelangelo.llm.finetune.recording import Evaluated, Event, Recorder, Saved, Stepped
from michelangelo.llm.finetune.trackers import values

pytestmark = pytest.mark.filterwarnings(
    # MLflow's own queries, seen with SQLAlchemy 2.1.
    "ignore:The ``noload`` loader strategy is deprecated"
)


class Kept:
    """A sink that keeps events."""

    name = "kept"

    def __init__(self) -> None:
        self.events: list[Event] = []

    def receive(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass


@pytest.fixture(params=readers.READERS)
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[TrackerConfig, Path, Callable[[Path], Found]]:
    """Its configuration, the folder of the run, and how it is read."""
    fields, read = readers.READERS[request.param]
    if request.param == "mlflow":
        pytest.importorskip("sqlalchemy", reason="MLflow's databases need sqlalchemy and alembic")
    folder = tmp_path / "one"
    changes = {"address": str(folder / fields["address"])} if "address" in fields else {}
    return TrackerConfig(**{**fields, **changes, "project": "demo"}), folder, read


def record(config: TrackerConfig, folder: Path, first: int = 1, last: int = 6) -> None:
    recorder = Recorder([trackers.make(config, folder)])
    for event in run_events.whole_run(first, last):
        recorder.record(event)
    recorder.close()
    assert [alert.kind for alert in recorder.alerts if alert.kind == "SinkLost"] == []


def expected_metrics() -> dict[str, dict[int, float]]:
    expected: dict[str, dict[int, float]] = {}
    for event in run_events.whole_run():
        if isinstance(event, Stepped | Evaluated | Saved):
            for name, value in values.metrics(event).items():
                expected.setdefault(name, {})[event.step] = value
    return expected


def close(found: dict[int, float], expected: dict[int, float]) -> bool:
    """TensorBoard keeps 32 bits."""
    return found.keys() == expected.keys() and all(math.isclose(found[k], expected[k], rel_tol=1e-6) for k in expected)


def test_tracker_holds_what_was_recorded(tracker: tuple[TrackerConfig, Path, Callable[[Path], Found]]) -> None:
    config, folder, read = tracker
    record(config, folder)
    found = read(folder)
    assert len(set(found.runs)) == 1
    expected = {name: str(value) for name, value in values.parameters(run_events.started()).items()}
    assert found.parameters == expected
    assert found.parameters["optimizer.betas"] == "[0.9, 0.95]"
    for name, points in expected_metrics().items():
        assert close(found.metrics[name], points), name
    assert "train/mfu" not in found.metrics
    assert any("the loss 9.0 of step 3 is far above" in alert for alert in found.alerts)
    assert found.summary["outcome"] == "Succeeded"
    assert float(found.summary["final_loss"]) == pytest.approx(5.0 / 6)
    assert float(found.summary["best_evaluation.loss"]) == 2.5


def test_tracker_continues_the_run_that_was_interrupted(
    tracker: tuple[TrackerConfig, Path, Callable[[Path], Found]],
) -> None:
    config, folder, read = tracker
    record(config, folder, last=5)
    record(config, folder, first=5)
    found = read(folder)
    assert len(set(found.runs)) == 1
    for name, points in expected_metrics().items():
        assert close(found.metrics[name], points), name


@pytest.fixture
def closed_address() -> str:
    """An address of this machine at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["mlflow", "comet", "wandb"])
def test_tracker_that_nobody_answers_for_costs_one_alert(kind: Any, closed_address: str, tmp_path: Path) -> None:
    kept = Kept()
    config = TrackerConfig(kind=kind, address=closed_address, offline=False)
    recorder = Recorder([trackers.make(config, tmp_path), kept])
    events = list(run_events.whole_run())
    for event in events:
        recorder.record(event)
    recorder.close()
    lost = [alert for alert in recorder.alerts if alert.kind == "SinkLost"]
    assert len(lost) == 1
    assert f"cannot be reached at {closed_address}" in lost[0].message
    assert [event for event in kept.events if event not in lost] == events


def test_tensorboard_folder_that_cannot_be_made_costs_one_alert(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = TrackerConfig(kind="tensorboard", address=str(tmp_path / "file" / "runs"))
    recorder = Recorder([trackers.make(config, tmp_path)])
    for event in run_events.whole_run():
        recorder.record(event)
    recorder.close()
    assert [alert.kind for alert in recorder.alerts].count("SinkLost") == 1
