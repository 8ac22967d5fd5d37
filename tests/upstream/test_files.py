"""Files that were written for the upstream SDK run unchanged, with the platform inside."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.upstream.conftest import Workshop


def test_quick_start_runs(workshop: Workshop) -> None:
    assert workshop.run("quick_start.py") == "result: model_path-0.5\n"


def test_project_with_modules_runs_with_the_variables_of_its_context(workshop: Workshop) -> None:
    out = workshop.run("examples/churn/churn.py")
    assert "result: train_model-0.5 cola" in out
    assert "found: {'path': 'train_model-0.5', 'accuracy': 0.65, 'rows': 20}" in out
    tasks = {one["spec"]["task"]: one["status"]["state"] for one in workshop.objects("TaskRun")}
    assert tasks == {"load_data": "Succeeded", "train_model": "Succeeded", "train_careful": "Succeeded"}
    environ = workshop.objects("PipelineRun")[0]["spec"]["input"]["environ"]
    assert environ == {"UF_LOCAL_RUN": "1", "DATA_SIZE": "100", "UNUSED": "0"}


def test_variables_of_the_command_line_come_before_those_of_the_file(workshop: Workshop) -> None:
    words = ("examples/churn/churn.py", "local-run", "--env", "DATA_SIZE=50", "HOST_VALUE", "--environ", "MORE=1")
    assert "'rows': 10" in workshop.run(*words, HOST_VALUE="here")
    environ = workshop.objects("PipelineRun")[0]["spec"]["input"]["environ"]
    assert environ == {"UF_LOCAL_RUN": "1", "DATA_SIZE": "50", "UNUSED": "0", "HOST_VALUE": "here", "MORE": "1"}


def test_second_run_takes_cached_tasks(workshop: Workshop) -> None:
    for _ in range(2):
        workshop.run("examples/churn/churn.py")
    states = [one["status"]["state"] for one in workshop.objects("TaskRun") if one["spec"]["task"] == "load_data"]
    assert sorted(states) == ["Cached", "Succeeded"]


def test_cache_can_be_switched_by_variables(workshop: Workshop) -> None:
    file = "examples/churn/churn.py"
    everything = {"CACHE_ENABLED": "true", "CACHE_ENABLED_load_data": "false"}
    for _ in range(2):
        workshop.run(file, **everything)
    states = sorted((one["spec"]["task"], one["status"]["state"]) for one in workshop.objects("TaskRun"))
    assert states == [
        ("load_data", "Succeeded"),
        ("load_data", "Succeeded"),
        ("train_careful", "Cached"),
        ("train_careful", "Succeeded"),
        ("train_model", "Cached"),
        ("train_model", "Succeeded"),
    ]


def test_calls_of_the_concurrency_library_overlap(workshop: Workshop, tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    assert ast.literal_eval(workshop.run("concurrency.py", MEETING=str(meeting))) == {
        "met": ["FIRST", "SECOND"],
        "squares": [0, 1, 4, 9, 16],
        "ready": True,
        "futures": [0, 1, 4, 9, 16],
        "workflow": 10,
        "caught": "negative",
    }


def test_library_of_time_is_journaled(workshop: Workshop) -> None:
    found = ast.literal_eval(workshop.run("dates.py"))
    assert found == {"slept": True, "partition": True, "epoch": "01:01:01", "shout": "DONE!"}
    types = sorted(one["spec"]["type"] for one in workshop.objects("TaskRun"))
    assert types == ["Task", "Timer", "Value", "Value", "Value"]


def test_own_types_travel_by_their_own_readers_and_writers(workshop: Workshop) -> None:
    assert workshop.run("custom_io.py", ROWS="5") == "the workflow holds Ref True\ntotal: 30\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster-run"], "'cluster-run' is no way to run: local-run or remote-run"),
        (["--env", "=1"], "must be NAME=VALUE, or NAME"),
        (["remote-run", "--cron", "0 8 * * *", "--yes"], "a context cannot make schedules"),
    ],
)
def test_wrong_words_of_the_command_line_are_named(workshop: Workshop, words: list[str], said: str) -> None:
    assert said in workshop.fail("dates.py", *words)
    assert not (workshop.home / "michelangelo.db").exists()


@pytest.mark.slow
def test_dataset_goes_from_ray_to_spark_and_back(workshop: Workshop) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("pyspark")
    workshop.patience_seconds = 300.0
    out = workshop.run("housing.py", RAY_AUTH_MODE="disabled")
    assert out.strip().splitlines()[-1] == "(442, True)"
    executors = {one["spec"]["task"]: one["status"]["details"]["executor"] for one in workshop.objects("TaskRun")}
    assert executors["feature_prep"] == executors["train_linear"] == "ray"
