"""Runs in workers of Ray Train: they end as one process does, survive the loss of workers and machines, and stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.llm.finetune import runs
from tests.llm.finetune.parallel import entries

from michelangelo import errors
from michelangelo.llm.finetune import running
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.parallel import launching

# Ray's own code leaves sockets and files to the garbage collector, and warns of settings of its own.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("_one_thread"),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::DeprecationWarning:ray", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One Ray for all tests here, of two machines with room for two workers and for one. It gives each worker what is
    on the path here."""
    import ray
    from ray import cluster_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path.cwd()))
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "60")
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()  # type: ignore[no-untyped-call]


def make(model: Path, data: Path, output: Path, /, **sections: Any) -> FinetuneConfig:
    parallel = {"num_workers": 2, "launcher": "ray", "sharding": "fsdp2", **sections.pop("parallel", {})}
    return runs.make_config(model, data, output, parallel=parallel, **sections)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_is_too_small_is_said(model_folder: Path, tmp_path: Path) -> None:
    config = make(model_folder, tmp_path, tmp_path / "run", parallel={"num_workers": 64})
    with pytest.raises(errors.SettingsError, match="64 workers need a CPU each, and the Ray cluster has 3"):
        launching.launch(config, entries.add_up, 1)


@pytest.mark.usefixtures("cluster")
def test_an_error_that_would_come_again_is_not_tried_again(model_folder: Path, tmp_path: Path) -> None:
    marks = _folder(tmp_path / "marks")
    config = make(model_folder, tmp_path, tmp_path / "run", parallel={"max_failures": 3})
    with pytest.raises(errors.DatasetError, match="the second process does not like the data"):
        launching.launch(config, entries.fail, "ours", str(marks))
    assert len(list(marks.iterdir())) == 1


@pytest.mark.usefixtures("cluster")
def test_losses_are_counted(model_folder: Path, tmp_path: Path) -> None:
    marks = _folder(tmp_path / "marks")
    config = make(model_folder, runs.texts(tmp_path), tmp_path / "run", parallel={"max_failures": 0})
    with pytest.raises(errors.LlmError, match=r"more than 0 times \(parallel.max_failures\)"):
        launching.launch(config, entries.finetune_dying, str(marks), 0)
    started = [event["step"] for event in runs.events(tmp_path / "run") if event["event"] == "Started"]
    assert started == [0]


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_the_steps_since_its_checkpoint(model_folder: Path, tmp_path: Path) -> None:
    """Also of a run that is not to go on from what an earlier one left in the folder."""
    data, marks = runs.texts(tmp_path), _folder(tmp_path / "marks")
    alone = {"training": {"gradient_accumulation": 2}}
    running.finetune(runs.make_config(model_folder, data, tmp_path / "one", **alone))
    kept = {"checkpoint": {"folder": str(tmp_path / "kept"), "resume": "never"}}
    running.finetune(runs.make_config(model_folder, data, tmp_path / "earlier", **kept))
    entry = "tests.llm.finetune.parallel.entries:finetune_dying"
    config = running.told_earlier_checkpoints(
        make(model_folder, data, tmp_path / "killed", parallel={"max_failures": 1}, **kept)
    )
    report = launching.launch(config, entry, str(marks), 0)
    assert [path.name for path in marks.iterdir()] == ["killed-2"]
    assert (report.outcome, report.step) == ("Succeeded", 8)
    started = [event["step"] for event in runs.events(tmp_path / "killed") if event["event"] == "Started"]
    assert started == [0, 4]
    assert runs.steps(tmp_path / "killed") == pytest.approx(runs.steps(tmp_path / "one"), rel=1e-4)


def test_a_run_of_one_worker_goes_to_the_address_and_stops_there_with_a_checkpoint(
    model_folder: Path, tmp_path: Path, cluster: Any
) -> None:
    output = tmp_path / "run"
    parallel = {"num_workers": 1, "launcher": "auto", "ray_address": cluster.address, "sharding": "none"}
    config = make(model_folder, runs.texts(tmp_path), output, parallel=parallel, training={"max_steps": 1_000_000})
    report = running.finetune(
        config, should_stop=lambda: (output / running.EVENTS).is_file() and bool(runs.steps(output))
    )
    assert (output / "ray").is_dir()
    assert (report.outcome, report.message) == ("Stopped", "stopped on request")
    saved = [event["step"] for event in runs.events(output) if event["event"] == "Saved"]
    assert saved[-1] == report.step < 1_000_000


def test_a_run_begins_with_the_workers_that_can_be_had_and_goes_on_with_those_that_are_left(
    model_folder: Path, tmp_path: Path, cluster: Any
) -> None:
    """The last test: the cluster has one machine then."""
    marks = _folder(tmp_path / "marks")
    config = make(
        model_folder,
        runs.texts(tmp_path),
        tmp_path / "run",
        parallel={"num_workers": 16, "min_workers": 1, "max_failures": 1},
    )
    report = launching.launch(config, entries.finetune_losing_a_node, str(marks), cluster.head_node.node_id)
    assert sorted(path.name[:2] for path in marks.iterdir()) == ["2-", "3-"]
    assert (report.outcome, report.step) == ("Succeeded", 8)
    started = [event["step"] for event in runs.events(tmp_path / "run") if event["event"] == "Started"]
    assert started[0] == 0
    assert started[1] in (2, 4)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
