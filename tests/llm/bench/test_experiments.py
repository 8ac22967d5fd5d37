"""Every experiment runs from end to end on a CPU: a prediction on disk first, a measurement, a report with a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.llm.bench import experiments, performing, tasks
from michelangelo.llm.bench.experiment import Quantity

pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    # torch.compile is no part of it, but torch imports what warns about its own scripts.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]


def run(name: str, folder: Path, **options: Any) -> dict[str, Any]:
    task = tasks.make(name, folder=folder, device="cpu", quick=True, **options)
    return dict(performing.perform(name, task))


@pytest.mark.slow
def test_sweep_predicts_before_it_measures(tmp_path: Path) -> None:
    report = run("batch-sweep", tmp_path)
    predictions = json.loads((tmp_path / performing.PREDICTIONS).read_text())
    assert predictions["predicted_at"] < report["measured_at"]
    assert [q["measured"] for q in predictions["quantities"]] == [None] * len(report["quantities"])
    speeds = [q["measured"] for q in report["quantities"] if q["name"] == "speed"]
    assert len(speeds) == 3
    assert all(speed > 0 for speed in speeds)
    memory = {q["case"]: q for q in report["quantities"] if q["name"] == "memory"}
    assert memory["batch 4"]["measured"] > memory["batch 1"]["measured"]
    assert json.loads((tmp_path / performing.REPORT).read_text()) == json.loads(json.dumps(report))
    assert "tokens/s" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "plot.svg").read_text().lstrip().startswith("<?xml")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in experiments.names() if name not in ("attention", "batch-sweep")])
def test_experiment_runs_to_its_end(tmp_path: Path, name: str) -> None:
    report = run(name, tmp_path)
    assert report["conclusions"]
    measured = [q for q in report["quantities"] if q["measured"] is not None]
    assert len(measured) >= 2
    assert (tmp_path / "plot.svg").exists()


@pytest.mark.slow
def test_flash_attention_saves_memory(tmp_path: Path) -> None:
    report = run("attention", tmp_path)
    assert report["conclusions"]
    assert (tmp_path / "plot.svg").exists()
    (saved,) = [q for q in report["quantities"] if q["name"] == "memory saved at equal batch"]
    assert saved["measured"] > 0.2
    assert saved["predicted"] == pytest.approx(saved["measured"], abs=0.06)


def test_unknown_experiment_names_similar_ones(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="did you mean attention"):
        tasks.make("atention", folder=tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"device": "cuda"}, "no GPU"), ({"memory_cap": "much"}, "is no size"), ({"memory_cap": "0GB"}, "is no size")],
    ids=str,
)
def test_what_cannot_be_is_refused_before_a_prediction(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.SettingsError, match=said):
        tasks.make("attention", folder=tmp_path / "run", **options)
    assert not (tmp_path / "run" / performing.PREDICTIONS).exists()


@pytest.mark.parametrize(
    ("text", "size"), [("80GB", 80 * 10**9), ("80GiB", 80 * 2**30), ("512m", 512 * 10**6), ("1.5 ki", 1536), ("7", 7)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert tasks.parse_bytes(text) == size


def test_error_of_a_prediction_is_relative_and_of_a_share_absolute() -> None:
    assert Quantity(case="c", name="n", unit="bytes", predicted=110, measured=100).error == pytest.approx(0.1)
    assert Quantity(case="c", name="n", unit="share", predicted=0.5, measured=0.4).error == pytest.approx(0.1)
    assert Quantity(case="c", name="n", unit="bytes", predicted=None, measured=100).error is None
    assert Quantity(case="c", name="n", unit="share", predicted=0, measured=0.6, goal=0.5).reaches_goal
    assert not Quantity(
        case="c", name="n", unit="nats", predicted=0, measured=1, goal=0.5, goal_is_upper=True
    ).reaches_goal
