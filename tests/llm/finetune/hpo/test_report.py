"""The report of a search: the order, the best, the files, and what a trial says of itself."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.llm.finetune import run_events

from michelangelo import errors
from michelangelo.llm.finetune import config as configuration
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.hpo import report, space, trial
from michelangelo.llm.finetune.hpo.report import SearchReport, Trial
from michelangelo.llm.finetune.recording import Ended, Evaluated, Event, Sink
from michelangelo.llm.finetune.sinks.events_file import EventsFile

RATE, RANK = "optimizer.learning_rate", "adapter.rank"


@pytest.fixture
def config(tmp_path: Path) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "model": {"path": "tiny"},
            "data": {"train": [{"path": "rows.jsonl"}], "validation_share": 0.1},
            "output": str(tmp_path / "search"),
            "trackers": [{"kind": "mlflow", "name": "sweep"}],
        }
    )


def made(folder: Path, trials: Sequence[Trial]) -> SearchReport:
    return SearchReport.of(trials, metric="validation loss", folder=folder)


def trials() -> list[Trial]:
    return [
        Trial(name="a", values={RATE: 1e-5, RANK: 4}, state="Succeeded", loss=3.0, step=10, seconds=1.0),
        Trial(name="b", values={RATE: 1e-3, RANK: 4}, state="Failed", step=2, message="the loss is nan | at step 2"),
        Trial(name="c", values={RATE: 2e-4, RANK: 16}, state="Succeeded", loss=2.0, step=10, seconds=1.0),
        Trial(name="d", values={RATE: 5e-4, RANK: 16}, state="Halted", loss=1.5, step=4, seconds=0.5),
    ]


def test_the_best_is_the_lowest_loss_of_a_whole_trial(tmp_path: Path) -> None:
    found = made(tmp_path, trials())
    assert [one.name for one in found.trials] == ["d", "c", "a", "b"]
    assert found.best is not None
    assert found.best.name == "c"


def test_the_files_hold_the_table_the_plot_and_the_configuration_to_run(tmp_path: Path, config: FinetuneConfig) -> None:
    written = report.write(made(tmp_path, trials()), config, space.DEFAULT)
    assert [file.name for file in written] == list(report.FILES)
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["best"] == "c"
    assert [one["loss"] for one in document["trials"]] == [1.5, 2.0, 3.0, None]
    best = configuration.load(str(tmp_path / "best.yaml"))
    assert (best.optimizer.learning_rate, best.adapter.rank) == (2e-4, 16)
    assert best.output == str(tmp_path / "best")
    assert best.data == config.data
    text = (tmp_path / "report.md").read_text()
    assert "4 trials, compared by the validation loss: 2 succeeded, 1 halted, 1 failed." in text
    assert "| b | 0.001 | 4 |  | 2 | 0.0 | Failed | the loss is nan \\| at step 2 |" in text
    words = ElementTree.parse(tmp_path / "losses.svg").getroot().itertext()
    assert words is not None


def test_the_plot_is_the_same_bytes_again(tmp_path: Path, config: FinetuneConfig) -> None:
    found = made(tmp_path, trials())
    report.write(found, config, space.DEFAULT)
    first = (tmp_path / "losses.svg").read_bytes()
    report.write(found, config, space.DEFAULT)
    assert (tmp_path / "losses.svg").read_bytes() == first


def test_without_a_whole_trial_there_is_no_best_and_no_old_file_stays(tmp_path: Path, config: FinetuneConfig) -> None:
    report.write(made(tmp_path, trials()), config, space.DEFAULT)
    written = report.write(made(tmp_path, [trials()[1]]), config, space.DEFAULT)
    assert [file.name for file in written] == ["report.json", "report.md"]
    assert "No trial came to its end" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "best.yaml").exists()


@pytest.fixture
def setup(config: FinetuneConfig) -> trial.TrialSetup:
    return trial.TrialSetup(config, Path(config.output), str(Path.cwd()))


def run(setup: trial.TrialSetup, train: Any) -> list[dict[str, Any]]:
    reports: list[dict[str, Any]] = []
    trial.run(setup, "t1", {RATE: 3e-4, RANK: 64}, train, reports.append)
    return reports


def test_a_trial_trains_its_own_configuration_and_reports_evaluations(setup: trial.TrialSetup) -> None:
    trained: list[FinetuneConfig] = []

    def train(config: FinetuneConfig, sinks: Sequence[Sink]) -> None:
        trained.append(config)
        for event in [*run_events.whole_run(), Evaluated(6, 2.25, 64, True)]:
            sinks[0].receive(event)

    reports = run(setup, train)
    assert [(one["loss"], one["step"], one["is_over"]) for one in reports] == [
        (2.5, 4, False),
        (2.25, 6, False),
        (2.25, 6, True),
    ]
    assert (trained[0].optimizer.learning_rate, trained[0].adapter.rank) == (3e-4, 64)
    assert trained[0].output == f"{setup.config.output}/trials/t1"
    assert trained[0].trackers[0].name == "sweep-t1"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Evaluated(6, math.nan, 0, False), "the validation data has no trained tokens"),
        (Evaluated(6, math.nan, 64, False), "without a loss to compare by"),
        (run_events.started(), "without a loss to compare by"),
    ],
)
def test_a_trial_that_cannot_be_compared_says_why(setup: trial.TrialSetup, event: Event, said: str) -> None:
    def train(config: FinetuneConfig, sinks: Sequence[Sink]) -> None:
        sinks[0].receive(event)

    assert said in run(setup, train)[-1]["message"]


def test_a_trial_without_validation_data_reports_the_smoothed_loss(setup: trial.TrialSetup) -> None:
    data = setup.config.data.model_copy(update={"validation_share": 0.0})
    without = trial.TrialSetup(setup.config.model_copy(update={"data": data}), setup.folder, setup.working_folder)

    def train(config: FinetuneConfig, sinks: Sequence[Sink]) -> None:
        for event in run_events.whole_run():
            sinks[0].receive(event)

    reports = run(without, train)
    assert len(reports) == 7
    assert reports[-1]["loss"] == reports[-2]["loss"] < reports[0]["loss"]


def test_a_failure_with_a_sentence_is_a_result(setup: trial.TrialSetup) -> None:
    def train(config: FinetuneConfig, sinks: Sequence[Sink]) -> None:
        sinks[0].receive(run_events.stepped(1, math.nan))
        sinks[0].receive(Ended(1, "Failed", ""))
        raise errors.DivergedError("the loss is nan from the first step on")

    (last,) = run(setup, train)
    assert last == {"loss": math.inf, "step": 1, "is_over": True, "message": "the loss is nan from the first step on"}


def test_a_trial_that_is_done_is_not_trained_again(setup: trial.TrialSetup) -> None:
    starts: list[str] = []

    def train(config: FinetuneConfig, sinks: Sequence[Sink]) -> None:
        starts.append(config.output)
        sinks[0].receive(Evaluated(6, 2.25, 64, True))

    assert run(setup, train)[-1] == run(setup, train)[-1]
    assert len(starts) == 1
    (setup.folder / "trials" / "t1" / "trial.json").write_text("{torn")
    run(setup, train)
    assert len(starts) == 2


def test_losses_of_workers_are_read_from_their_file(setup: trial.TrialSetup) -> None:
    def train(config: FinetuneConfig, sinks: Sequence[Sink]) -> None:
        file = EventsFile(Path(config.output) / "events.jsonl")
        for event in run_events.whole_run():
            file.receive(event)
        file.close()

    assert run(setup, train) == [{"loss": 2.5, "step": 6, "is_over": True, "message": ""}]


def test_values_that_fit_no_configuration_are_a_result_too(setup: trial.TrialSetup) -> None:
    reports: list[dict[str, Any]] = []
    trial.run(setup, "t1", {"adapter.rank": 0}, lambda config, sinks: None, reports.append)
    assert "adapter.rank" in reports[0]["message"]
