"""The demo of a sandbox: a project, two pipelines written with upstream's names, and a run of them.

The files are written into the sandbox, for people to read and change; they need nothing but Python itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from michelangelo.cli import apply as generic
from michelangelo.cli import pipeline_apply, pipeline_run_verb

__all__ = ["PROJECT", "files", "run"]

PROJECT: Final = "ma-dev-test"

_TRAINING: Final = '''\
"""Fits a straight line to noisy points, in parallel for several noise levels."""

import random
from dataclasses import dataclass

import michelangelo.uniflow.core as uniflow
from michelangelo.uniflow.core.lib import concurrent


@dataclass
class Fit:
    noise: float
    slope: float
    error: float


@uniflow.task(cache_enabled=True)
def load(points: int, noise: float):
    source = random.Random(7)
    xs = [index / points for index in range(points)]
    return xs, [3.0 * x + 1.0 + source.gauss(0.0, noise) for x in xs]


@uniflow.task(cache_enabled=True, retry_attempts=1)
def fit(xs: list, ys: list, noise: float) -> Fit:
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys)) / sum((x - middle_x) ** 2 for x in xs)
    print(f"noise {noise}: slope {slope:.3f}")
    return Fit(noise, slope, abs(slope - 3.0))


@uniflow.workflow()
def train_workflow(points: int = 200):
    calls = []
    for noise in [0.1, 0.5, 1.0]:
        xs, ys = load(points, noise)
        calls.append(concurrent.new_callable(fit, xs, ys, noise))
    fits = concurrent.batch_run(calls, max_concurrency=2).get()
    return min(fits, key=lambda found: found.error)


if __name__ == "__main__":
    ctx = uniflow.create_context()
    print(ctx.run(train_workflow))
'''

_RETRAINING: Final = '''\
"""Runs the training pipeline as a run of its own, and looks at what came of it."""

import michelangelo.uniflow.core as uniflow
from michelangelo.uniflow.plugins.pipeline import run_pipeline


@uniflow.workflow()
def retrain_workflow(points: int = 400):
    run = run_pipeline("ma-dev-test", "training-pipeline", kwargs={"points": points})
    return {"run": run["metadata"]["name"], "best": run["result"]}
'''

_PROJECT: Final = """\
apiVersion: michelangelo.api/v2
kind: Project
metadata:
  name: ma-dev-test
  namespace: ma-dev-test
  annotations: {michelangelo/worker_queue: default}
spec:
  description: Project of the sandbox's demo
  tier: 4
"""

_PIPELINE: Final = """\
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata:
  namespace: ma-dev-test
  name: {name}
  annotations: {{michelangelo/uniflow-image: examples:latest}}
spec:
  type: PIPELINE_TYPE_TRAIN
  description: {description}
  manifest:
    type: PIPELINE_MANIFEST_TYPE_UNIFLOW
    filePath: {path}
"""


def files() -> Mapping[str, str]:
    """The demo's files, by name."""
    return {
        "project.yaml": _PROJECT,
        "training.py": _TRAINING,
        "retraining.py": _RETRAINING,
        "training-pipeline.yaml": _PIPELINE.format(
            name="training-pipeline", description="Fits a line", path="training:train_workflow"
        ),
        "retraining-pipeline.yaml": _PIPELINE.format(
            name="retraining-pipeline", description="Runs the training pipeline", path="retraining"
        ),
    }


def run(ctx: click.Context, folder: Path) -> None:
    """Write the files, register what they declare, and run the pipeline that runs the other one."""
    folder.mkdir(exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    ctx.invoke(generic.apply, filenames=(str(folder / "project.yaml"),))
    for name in ("training-pipeline", "retraining-pipeline"):
        ctx.invoke(pipeline_apply.apply, filenames=(str(folder / f"{name}.yaml"),))
    click.echo(f"its files: {folder}", err=True)
    ctx.invoke(pipeline_run_verb.run, name="retraining-pipeline", namespace=PROJECT, wait=True)
    click.echo(f"look around: mactl get pipeline_run -n {PROJECT}", err=True)
