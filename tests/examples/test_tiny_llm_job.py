"""The main job as a user runs it, small: what it leaves, what it learns, cached, killed and resumed, on a server.

In one file, so by one worker: two of these jobs at once, each with a Ray, are too much for two cores with other tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest
from tests.examples import tiny_llm_jobs as jobs
from tests.mactl_server import serving

pytestmark = pytest.mark.slow

SHORT = ("--lora-epochs", "1", "--prompts", "1")
"""Of what comes behind the training, which is as long as in `make run ARGS=--quick`."""


@pytest.fixture(scope="module")
def first(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> jobs.Job:
    """The first run in an empty folder."""
    return jobs.run(checkout, tmp_path_factory.mktemp("tiny_llm"), *jobs.SMALL)


class _Links(HTMLParser):
    """What a page would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {value}" for name, value in attrs if name in ("src", "href") and value is not None]
        if tag in ("script", "link", "iframe"):
            self.found.append(tag)


def test_job_leaves_report_models_and_curves(first: jobs.Job) -> None:
    folder = first.out / "tiny_llm"
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (folder / "loss.svg").read_text()
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors", "tokenizer.json"):
        assert (folder / name).stat().st_size > 10_000
    assert len(first.metrics["gains"]) == len(first.metrics["verdicts"]) == 4
    assert first.metrics["curves"]["training"][-1]["step"] == 12
    samples = json.loads((folder / "samples.json").read_text())
    assert [one["kind"] for one in samples] == ["text", "question"]
    assert all(one["reference_loss"] > 0 for one in samples)


def test_job_shows_what_it_found_and_nothing_else(first: jobs.Job) -> None:
    assert "report.html" in first.stdout
    assert all(verdict in first.stdout for verdict in first.metrics["verdicts"])
    assert first.steps("succeeded") == jobs.STEPS
    assert [line for line in first.stderr.splitlines() if "warn" in line.lower()] == []


def test_page_is_whole_in_itself(first: jobs.Job) -> None:
    text = (first.out / "tiny_llm" / "report.html").read_text()
    page = _Links()
    page.feed(text)
    assert [one for one in page.found if "#" not in one] == []
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    for said in (*first.metrics["digests"].values(), *first.metrics["verdicts"]):
        assert said in text


def test_second_run_takes_everything_from_the_cache(first: jobs.Job, checkout: Path) -> None:
    second = jobs.run(checkout, first.out, *jobs.SMALL)
    assert (second.steps("succeeded"), second.steps("cached")) == ([], jobs.STEPS)
    assert second.metrics == first.metrics


def test_changed_learning_rate_runs_only_what_depends_on_it(first: jobs.Job, checkout: Path) -> None:
    changed = jobs.run(checkout, first.out, *jobs.SMALL, "--learning-rate", "0.001")
    kept = ["initialise", "measure", "measure_baseline", "prepare", "train_tokenizer"]
    assert changed.steps("cached") == kept
    assert changed.steps("succeeded") == ["complete", "measure", "measure", "pretrain", "tune", "write_report"]


@pytest.mark.parametrize("seed", ["1", "2"])
def test_trained_model_beats_the_baseline_and_the_untrained(checkout: Path, tmp_path: Path, seed: str) -> None:
    job = jobs.run(checkout, tmp_path, "--quick", *SHORT, "--seed", seed)
    assert job.loss("trained") < job.loss("unigram") < job.loss("untrained")
    gains = {(one["better"], one["worse"], one["subject"]): one for one in job.metrics["gains"]}
    for worse in ("unigram", "untrained"):
        gain = gains["trained", worse, "text"]
        assert gain["low"] > 0
        assert gain["nats"] == pytest.approx(job.loss(worse) - job.loss("trained"))
        assert f"trained beats {worse} by {gain['nats']:.3f} nats per token" in job.stdout


@pytest.mark.parametrize("after", ["tune"])
def test_killed_job_resumes_to_the_same_metrics(first: jobs.Job, checkout: Path, tmp_path: Path, after: str) -> None:
    with subprocess.Popen(
        jobs.command(checkout, tmp_path, *jobs.SMALL), env=jobs.environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while f"{after}: succeeded" not in process.stderr.readline():
            assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait(jobs.DEADLINE_SECONDS)
    resumed = jobs.run(checkout, tmp_path, "--resume")
    assert after not in resumed.steps("succeeded")
    assert resumed.metrics == first.metrics
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_pipeline_runs_on_a_server(first: jobs.Job, checkout: Path, tmp_path: Path) -> None:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = jobs.environment() | {
        "PATH": programs,
        "MA_HOME": str(tmp_path / ".ma"),
        "MA_PORT": "0",
        "NO_COLOR": "1",
    }
    folder = checkout / "examples" / "tiny_llm"
    given = ("steps=12", "batch_size=8", "hidden=64", "layers=1", "lora_epochs=1", "prompts=1")

    def mactl(*words: str) -> str:
        done = subprocess.run(
            ["mactl", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=jobs.DEADLINE_SECONDS,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with serving(tmp_path, environment):
        mactl("apply", "-f", str(folder / "project.yaml"))
        mactl("pipeline", "apply", "-f", str(folder / "pipeline.yaml"))
        arguments = [word for one in given for word in ("--arg", one)]
        mactl("pipeline", "run", "tiny-llm", "-n", "tiny-llm", *arguments, "--wait")
        run = json.loads(mactl("get", "pipeline_run", "-n", "tiny-llm", "-o", "json"))["items"][0]
    assert run["status"]["state"] == "Succeeded"
    assert first.metrics["digests"]["model"] in json.dumps(run["status"]["result"])
