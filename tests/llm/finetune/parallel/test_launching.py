"""Processes are started, meet, and end together; a whole run by two of them is that of one."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.llm.finetune import runs
from tests.llm.finetune.parallel import entries

from michelangelo import errors
from michelangelo.llm.finetune import running
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.parallel import launching, on_ray

pytestmark = pytest.mark.usefixtures("_one_thread")

PROGRAM = """
from pathlib import Path
from tests.llm.finetune.parallel import entries, test_launching
from michelangelo.llm.finetune.parallel import launching
if __name__ == "__main__":
    launching.launch(test_launching.make(Path("{folder}")), entries.wait, "{pipe}")
"""


@pytest.fixture
def config(tmp_path: Path) -> FinetuneConfig:
    """Of two processes."""
    return make(tmp_path)


def make(folder: Path, **parallel: Any) -> FinetuneConfig:
    return runs.make_config(folder, folder / "none", folder / "run", parallel={"num_workers": 2, **parallel})


def test_result_is_that_of_the_first_process(config: FinetuneConfig) -> None:
    assert launching.launch(config, "tests.llm.finetune.parallel.entries:add_up", 20) == (0, 41.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("ours", errors.DatasetError, "the second process does not like the data"),
        ("kill", errors.LlmError, "worker 1 of 2 was ended by SIGKILL"),
        ("theirs", errors.LlmError, "worker 1 of 2 failed: ZeroDivisionError: a mistake"),
    ],
)
def test_one_that_fails_ends_the_others(config: FinetuneConfig, how: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        launching.launch(config, entries.fail, how)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("parallel", "said"),
    [
        ({"launcher": "none"}, "2 workers are asked for, and 1 process is there"),
        ({"tensor_parallel": 2, "offload": "optimizer"}, "without tensor_parallel only"),
        ({"ray_address": "127.0.0.1:1"}, "parallel.ray_address 127.0.0.1:1: nothing answers there"),
    ],
)
def test_what_cannot_be_started_is_said(tmp_path: Path, parallel: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.SettingsError, match=said):
        launching.launch(make(tmp_path, **parallel), entries.add_up, 1)


@pytest.mark.parametrize("name", ["nowhere:add_up", "tests.llm.finetune.parallel.entries:nothing", "entries"])
def test_a_name_that_is_no_function_is_said(config: FinetuneConfig, name: str) -> None:
    with pytest.raises(errors.SettingsError, match="is no function that can be imported"):
        launching.launch(config, name)


def test_a_gpu_for_each_worker(tmp_path: Path) -> None:
    config = make(tmp_path)
    wanting = config.model_copy(update={"training": config.training.model_copy(update={"device": "cuda"})})
    with pytest.raises(errors.SettingsError, match="2 workers need a GPU each, and this machine has"):
        launching.launch(wanting, entries.add_up, 1)


@pytest.mark.parametrize(("now", "passes"), [(4, 2), (2, 4), (3, 3), (1, 8), (8, 1)])
def test_fewer_workers_take_more_passes(tmp_path: Path, now: int, passes: int) -> None:
    """So that a step has as many sequences, or, where that cannot be, a few more."""
    config = runs.make_config(
        tmp_path, tmp_path, tmp_path, parallel={"num_workers": 4}, training={"gradient_accumulation": 2}
    )
    changed = on_ray.resized(config, now)
    assert (changed.parallel.num_workers, changed.training.gradient_accumulation) == (now, passes)


def test_run_of_two_processes_is_that_of_one(model_folder: Path, tmp_path: Path) -> None:
    data = runs.texts(tmp_path)
    one = runs.make_config(model_folder, data, tmp_path / "one", training={"gradient_accumulation": 2})
    two = runs.make_config(model_folder, data, tmp_path / "two", parallel={"num_workers": 2, "sharding": "fsdp2"})
    alone, together = running.finetune(one), running.finetune(two)
    assert together.outcome == "Succeeded"
    assert together.num_trained_tokens == alone.num_trained_tokens
    losses = runs.steps(tmp_path / "one")
    assert runs.steps(tmp_path / "two") == pytest.approx(losses, rel=1e-4)


@pytest.mark.slow
def test_reference_that_is_asked_beforehand_is_known_to_all_processes(model_folder: Path, tmp_path: Path) -> None:
    """Each asks for its share of the answers; in another pass it gets those of the other one."""
    data = runs.pairs(tmp_path, rows=8)  # a pass is two steps
    terms: dict[str, Any] = {"objective": "dpo"}
    one = runs.make_config(model_folder, data, tmp_path / "one", training={"gradient_accumulation": 2}, **terms)
    divided = {"num_workers": 2, "sharding": "fsdp2"}
    known = {"precompute_reference": True}
    two = runs.make_config(model_folder, data, tmp_path / "two", parallel=divided, preference=known, **terms)
    for config in (one, two):
        running.finetune(config)
    assert runs.steps(tmp_path / "two") == pytest.approx(runs.steps(tmp_path / "one"), rel=1e-3)


@pytest.mark.slow
def test_processes_are_asked_to_stop_and_leave_a_checkpoint(model_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = runs.make_config(
        model_folder,
        runs.texts(tmp_path),
        output,
        parallel={"num_workers": 2, "sharding": "fsdp2"},
        training={"max_steps": 1_000_000},
    )
    report = running.finetune(
        config, should_stop=lambda: (output / running.EVENTS).is_file() and bool(runs.steps(output))
    )
    assert (report.outcome, report.message) == ("Stopped", "stopped on request")
    assert running.last_saved(config) == (
        report.step,
        str(next((output / "checkpoints").glob(f"step-{report.step:08d}-*"))),
    )


@pytest.mark.slow
def test_processes_of_a_killed_run_end_with_it(tmp_path: Path) -> None:
    """The program that started them is killed: they are told, and leave nothing behind."""
    pipe = tmp_path / "pids"
    os.mkfifo(pipe)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(folder=str(tmp_path), pipe=str(pipe)))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    try:
        with os.fdopen(os.open(pipe, os.O_RDWR)) as lines:  # never at its end between two that write
            ends = [os.pidfd_open(int(lines.readline())) for _ in range(2)]
    finally:
        process.kill()
        process.wait()
    for end in ends:
        assert select.select([end], [], [], 60)[0], "it still runs"
        os.close(end)
