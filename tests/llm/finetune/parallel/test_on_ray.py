"""Runs in workers of Ray Train: they end as one process does, survive the loss of a worker, and go on with fewer."""

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
def _cluster() -> Iterator[None]:
    """One Ray for all tests here; it gives each worker what is on the path here."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path.cwd()))
        ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def make(model: Path, data: Path, output: Path, **parallel: Any) -> FinetuneConfig:
    made: dict[str, Any] = {"num_workers": 2, "launcher": "ray", "sharding": "fsdp2", **parallel}
    return runs.make_config(model, data, output, parallel=made)


@pytest.mark.usefixtures("_cluster")
def test_run_is_that_of_one_process(model_folder: Path, tmp_path: Path) -> None:
    data = runs.texts(tmp_path)
    running.finetune(runs.make_config(model_folder, data, tmp_path / "one", training={"gradient_accumulation": 2}))
    report = running.finetune(make(model_folder, data, tmp_path / "two"))
    assert report.outcome == "Succeeded"
    assert runs.steps(tmp_path / "two") == pytest.approx(runs.steps(tmp_path / "one"), rel=1e-4)


@pytest.mark.usefixtures("_cluster")
def test_a_killed_worker_costs_the_steps_since_its_checkpoint(model_folder: Path, tmp_path: Path) -> None:
    data, marks = runs.texts(tmp_path), tmp_path / "marks"
    marks.mkdir()
    running.finetune(make(model_folder, data, tmp_path / "whole"))
    report = launching.launch(make(model_folder, data, tmp_path / "killed"), entries.finetune_dying, str(marks), 0)
    assert [path.name for path in marks.iterdir()] == ["killed-2"]
    assert (report.outcome, report.step) == ("Succeeded", 8)
    assert runs.steps(tmp_path / "killed") == runs.steps(tmp_path / "whole")


@pytest.mark.usefixtures("_cluster")
def test_a_cluster_that_is_too_small_is_said(model_folder: Path, tmp_path: Path) -> None:
    config = make(model_folder, tmp_path, tmp_path / "run", num_workers=64)
    with pytest.raises(errors.SettingsError, match="64 workers need a CPU each, and the Ray cluster has 8"):
        launching.launch(config, entries.add_up, 1)
