"""The main job: real data, real models, as `make run` runs it; cached, resumed, and the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

DEADLINE_SECONDS = 240


@dataclass(frozen=True)
class Job:
    """Where one run put its things, and what it said."""

    out: Path
    stdout: str
    stderr: str

    @property
    def digest(self) -> str:
        data = (self.out / "breast_cancer" / "model.joblib").read_bytes()
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def steps(self, word: str) -> list[str]:
        """The tasks whose line of progress says `word` (succeeded, cached)."""
        return sorted(line.strip().partition(":")[0] for line in self.stderr.splitlines() if f": {word}" in line)


def _command(checkout: Path, out: Path, *words: str) -> list[str]:
    return [sys.executable, str(checkout / "examples" / "breast_cancer" / "main.py"), "--out", str(out), *words]


def _run(checkout: Path, out: Path, *words: str) -> Job:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MA_")}
    result = subprocess.run(
        _command(checkout, out, *words),
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return Job(out, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def first(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The first run in an empty folder."""
    return _run(checkout, tmp_path_factory.mktemp("breast_cancer"))


def test_job_compares_three_models_and_reports_the_best(first: Job) -> None:
    folder = first.out / "breast_cancer"
    summary = json.loads((folder / "metrics.json").read_text())
    metrics = {one["name"]: one for one in summary["metrics"]}
    assert set(metrics) == {"logistic", "svm", "boosting"}
    assert all(one["roc_auc"] > 0.97 for one in metrics.values())
    assert summary["best"] == max(metrics, key=lambda name: metrics[name]["roc_auc"])
    assert summary["modelDigest"] == first.digest
    assert (folder / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (folder / "roc.svg").read_text()
    for page in ("report.md", "report.html"):
        assert first.digest in (folder / page).read_text()


def test_job_prints_its_table_and_where_to_look(first: Job) -> None:
    assert "← best" in first.stdout
    assert first.digest in first.stdout
    assert "mactl get pipeline_run" in first.stdout
    assert first.steps("succeeded") == sorted(["prepare", *["train"] * 3, *["evaluate"] * 3, "report"])


def test_second_run_takes_everything_from_the_cache(first: Job, checkout: Path) -> None:
    second = _run(checkout, first.out)
    assert (second.steps("succeeded"), len(second.steps("cached"))) == ([], 8)
    assert second.digest == first.digest


def test_changed_hyperparameter_runs_only_what_depends_on_it(first: Job, checkout: Path) -> None:
    changed = _run(checkout, first.out, "--logistic-c", "0.5")
    assert changed.steps("succeeded") == ["evaluate", "report", "train"]
    assert len(changed.steps("cached")) == 5


@pytest.mark.slow
def test_killed_job_resumes_to_the_same_model(first: Job, checkout: Path, tmp_path: Path) -> None:
    with subprocess.Popen(_command(checkout, tmp_path), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "prepare: succeeded" not in process.stderr.readline():
            assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_SECONDS)
    resumed = _run(checkout, tmp_path, "--resume")
    assert "prepare" not in resumed.steps("succeeded")
    assert resumed.digest == first.digest
    assert [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []


def test_wrong_parameter_is_refused_before_anything_starts(checkout: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        _command(checkout, tmp_path, "--svm-c", "strong"), capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "svm_c" in result.stderr
    assert not (tmp_path / "breast_cancer").exists()
