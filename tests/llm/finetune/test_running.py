"""Whole training runs on the CPU: they learn, stop, resume to the same bits, survive kill -9, and say what is wrong."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from tests.llm.finetune import runs

from michelangelo import errors
from michelangelo.llm.finetune import recording, running
from michelangelo.llm.finetune.checkpoint import store
from michelangelo.llm.finetune.config import CheckpointConfig, FinetuneConfig
from michelangelo.llm.finetune.recording import Event

PROGRAM = """
import sys
import torch
from michelangelo.llm.finetune import config, running
torch.set_num_threads(1)
running.finetune(config.load(sys.argv[1]))
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return runs.texts(tmp_path)


def test_run_learns_and_leaves_a_report(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = runs.make_config(
        model_folder, data, tmp_path / "run", training={"max_steps": 20}, data={"validation_share": 0.2}
    )
    report = running.finetune(config)
    losses = list(runs.steps(tmp_path / "run").values())
    assert len(losses) == 20
    assert losses[-1] < losses[0] - 0.3
    assert report.outcome == "Succeeded"
    assert report.loss == losses[-1]
    assert report.validation_loss < losses[0]
    assert report.num_trained_parameters == report.num_parameters
    assert json.loads((tmp_path / "run" / running.REPORT).read_text()) == json.loads(json.dumps(report.to_dict()))
    kinds = [event["event"] for event in runs.events(tmp_path / "run")]
    assert kinds[0] == "Started"
    assert kinds[-1] == "Ended"
    assert "Evaluated" in kinds


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"adapter": {"method": "lora", "rank": 4, "dropout": 0.1}, "optimizer": {"learning_rate": 1e-2}},
        {"training": {"gradient_accumulation": 2, "precision": "bf16_mixed"}},
        {"objective": "sft", "data": {"streaming": True, "shuffle_buffer": 8}},
    ],
    ids=["full", "lora with dropout", "bf16, accumulated", "stream"],
)
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    model_folder: Path, data: Path, tmp_path: Path, sections: dict[str, dict[str, Any]]
) -> None:
    whole = _config(model_folder, data, tmp_path / "whole", sections)
    running.finetune(whole)
    parts = _config(model_folder, data, tmp_path / "parts", sections)
    stop = runs.StopAt(5)
    stopped = running.finetune(parts, sinks=[stop], should_stop=lambda: stop.is_reached)
    assert (stopped.outcome, stopped.step) == ("Stopped", 5)
    running.finetune(parts)
    assert runs.steps(tmp_path / "parts") == runs.steps(tmp_path / "whole")
    assert _tensors(tmp_path / "parts") == _tensors(tmp_path / "whole")


@pytest.mark.slow
def test_killed_run_goes_on_from_its_newest_checkpoint(model_folder: Path, data: Path, tmp_path: Path) -> None:
    whole = _config(model_folder, data, tmp_path / "whole", {})
    running.finetune(whole)
    config = _config(model_folder, data, tmp_path / "killed", {})
    path = tmp_path / "killed.json"
    path.write_text(config.model_dump_json())
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stderr=subprocess.PIPE, text=True)
    events = tmp_path / "killed" / running.EVENTS
    try:
        _wait_for(lambda: events.is_file() and '"Saved"' in events.read_text(), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    report = running.finetune(config)
    assert report.step == 8
    assert runs.steps(tmp_path / "killed") == runs.steps(tmp_path / "whole")
    assert _tensors(tmp_path / "killed") == _tensors(tmp_path / "whole")


def test_accumulated_passes_equal_a_larger_batch(model_folder: Path, data: Path, tmp_path: Path) -> None:
    losses = []
    for batch, passes in ((4, 1), (2, 2), (1, 4)):
        training = {"micro_batch": batch, "gradient_accumulation": passes, "max_steps": 5}
        output = tmp_path / f"{batch}"
        running.finetune(runs.make_config(model_folder, data, output, training=training))
        losses.append(list(runs.steps(output).values()))
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[2] == pytest.approx(losses[0], abs=1e-4)


def test_corrupt_checkpoint_is_left_out_and_the_one_before_is_used(
    model_folder: Path, data: Path, tmp_path: Path
) -> None:
    config = _config(model_folder, data, tmp_path / "run", {})
    stop = runs.StopAt(7)
    running.finetune(config, sinks=[stop], should_stop=lambda: stop.is_reached)
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    tensors = next(newest.glob("*.safetensors"))
    damaged = bytearray(tensors.read_bytes())
    damaged[-5] ^= 0xFF
    tensors.write_bytes(damaged)
    report = running.finetune(config)
    started = [event for event in runs.events(tmp_path / "run") if event["event"] == "Started"]
    assert started[-1]["step"] == 6
    assert report.step == 8
    assert any("step-00000006" in alert for alert in report.alerts)


def test_loss_that_is_no_number_stops_the_run(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = runs.make_config(
        model_folder, data, tmp_path / "run", optimizer={"learning_rate": 1e30, "warmup_steps": 0}
    )
    with pytest.raises(errors.DivergedError, match="learning rate"):
        running.finetune(config)
    ended = runs.events(tmp_path / "run")[-1]
    assert (ended["event"], ended["outcome"]) == ("Ended", "Failed")


def test_roll_back_goes_on_with_the_data_that_follows(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = runs.make_config(
        model_folder,
        data,
        tmp_path / "run",
        optimizer={"learning_rate": 1e30, "warmup_steps": 0},
        policy={"on_nan": "roll_back", "max_skips": 2},
        checkpoint={"every_steps": 1},
    )
    with pytest.raises(errors.DivergedError, match="rolled back 2 times"):
        running.finetune(config)
    alerts = [event["kind"] for event in runs.events(tmp_path / "run") if event["event"] == "Alert"]
    assert alerts.count("RolledBack") == 2


def test_training_goes_on_when_a_sink_fails(model_folder: Path, data: Path, tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def receive(self, event: Event) -> None:
            raise recording.SinkError("cannot be reached")

        def close(self) -> None: ...

    report = running.finetune(runs.make_config(model_folder, data, tmp_path / "run"), sinks=[Broken()])
    assert report.step == 8
    assert any("broken" in alert for alert in report.alerts)


class ShortOfMemory:
    """Memory runs out in the first step, so many times."""

    name = "short"

    def __init__(self, times: int) -> None:
        self._left = times
        self.events: list[Event] = []

    def receive(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, recording.Stepped) and self._left:
            self._left -= 1
            raise torch.OutOfMemoryError("out of memory")

    def close(self) -> None: ...


def test_out_of_memory_takes_a_smaller_batch_once(model_folder: Path, data: Path, tmp_path: Path) -> None:
    whole = running.finetune(_config(model_folder, data, tmp_path / "whole", {}))
    short = ShortOfMemory(times=1)
    report = running.finetune(_config(model_folder, data, tmp_path / "run", {}), sinks=[short])
    assert report.num_tokens == whole.num_tokens
    assert report.loss == pytest.approx(whole.loss, abs=1e-3)
    assert any("trying micro_batch 1" in alert for alert in report.alerts)


@pytest.mark.slow
def test_out_of_memory_twice_ends_with_the_view_of_the_plan(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = _config(model_folder, data, tmp_path / "run", {})
    with pytest.raises(errors.DeviceMemoryError, match=r"the plan says .* GiB .*checkpointing full"):
        running.finetune(config, sinks=[ShortOfMemory(times=2)])
    assert runs.events(tmp_path / "run")[-1]["outcome"] == "Failed"


def test_early_stop_ends_a_run_that_learns_no_more(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = runs.make_config(
        model_folder,
        data,
        tmp_path / "run",
        training={"max_steps": 30, "eval_every": 1},
        data={"validation_share": 0.2},
        policy={"early_stop_evaluations": 2, "early_stop_improvement": 10.0},
    )
    report = running.finetune(config)
    assert report.outcome == "Stopped"
    assert report.step == 3
    assert "stopped early" in report.message


def test_finished_run_is_not_run_again(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = _config(model_folder, data, tmp_path / "run", {})
    first = running.finetune(config)
    second = running.finetune(config)
    assert (second.step, second.loss) == (first.step, first.loss)
    assert len(runs.steps(tmp_path / "run")) == 8


@pytest.mark.slow
@pytest.mark.parametrize("resume", ["never", "earlier"])
def test_workers_that_are_started_again_go_on_from_their_own_checkpoint(
    model_folder: Path, data: Path, tmp_path: Path, resume: str
) -> None:
    """And those of an earlier run in the same folder are neither gone on from nor gone back to."""
    running.finetune(_config(model_folder, data, tmp_path / "run", {}))
    if resume == "earlier":
        resume = str(sorted((tmp_path / "run" / "checkpoints").glob("step-00000004-*"))[0])
    (tmp_path / "run" / running.EVENTS).unlink()
    again = _config(model_folder, data, tmp_path / "run", {"checkpoint": {"resume": resume}})
    config = running.told_earlier_checkpoints(again)
    for last in (6, 9):
        stop = runs.StopAt(last)
        running.work(config, sinks=[stop], should_stop=lambda stop=stop: stop.is_reached)  # type: ignore[misc]
    started = [event["step"] for event in runs.events(tmp_path / "run") if event["event"] == "Started"]
    assert started == ([0, 6] if resume == "never" else [4, 6])


def test_preference_run_learns_to_prefer(model_folder: Path, tmp_path: Path) -> None:
    config = runs.make_config(
        model_folder,
        runs.pairs(tmp_path),
        tmp_path / "run",
        objective="dpo",
        adapter={"method": "lora", "rank": 8},
        optimizer={"learning_rate": 1e-2},
        training={"max_steps": 24},
    )
    running.finetune(config)
    steps = [event for event in runs.events(tmp_path / "run") if event["event"] == "Stepped"]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]
    assert steps[-1]["metrics"]["accuracy"] == 1.0
    assert steps[-1]["metrics"]["margin"] > 0.2


def test_qlora_run_learns(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = runs.make_config(
        model_folder,
        data,
        tmp_path / "run",
        adapter={"method": "qlora", "rank": 8},
        optimizer={"learning_rate": 1e-2},
        training={"precision": "bf16_mixed", "max_steps": 12},
    )
    report = running.finetune(config)
    losses = list(runs.steps(tmp_path / "run").values())
    assert losses[-1] < losses[0] - 0.05
    assert report.num_trained_parameters < report.num_parameters


@pytest.mark.parametrize(
    ("sections", "error", "said"),
    [
        ({"model": {"path": "nosuch/model"}}, errors.ModelError, "nosuch/model"),
        ({"data": {"train": [{"path": "nosuch.jsonl"}]}}, errors.DatasetError, r"nosuch\.jsonl"),
        ({"adapter": {"method": "lora", "targets": ["q_porj"]}}, errors.ModelError, "q_porj"),
        ({"training": {"device": "cuda"}}, errors.SettingsError, "GPU"),
        ({"checkpoint": {"resume": "nosuch/checkpoint"}}, errors.CheckpointError, "nosuch/checkpoint"),
    ],
    ids=["model", "data", "target", "device", "checkpoint"],
)
def test_what_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    data: Path,
    tmp_path: Path,
    sections: dict[str, dict[str, Any]],
    error: type[errors.MichelangeloError],
    said: str,
) -> None:
    # What a machine without a network finds out after five tries.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(error, match=said):
        running.finetune(runs.make_config(model_folder, data, tmp_path / "run", **sections))


def test_output_that_cannot_be_written_is_named(model_folder: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.SettingsError, match="output"):
        running.finetune(runs.make_config(model_folder, data, tmp_path / "file"))


def _config(model: Path, data: Path, output: Path, sections: dict[str, Any]) -> FinetuneConfig:
    return runs.make_config(model, data, output, **sections)


def _tensors(output: Path) -> dict[str, bytes]:
    """Everything that the newest checkpoint holds, as bytes."""
    checkpoints = store.CheckpointStore(
        str(output / "checkpoints"), CheckpointConfig(), rank=0, world_size=1, record=lambda _: None
    )
    newest = checkpoints.newest()
    checkpoints.close()
    assert newest is not None
    folder = output / "checkpoints" / newest.folder
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def _wait_for(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not is_so():
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])


def test_relative_folder_of_checkpoints_is_kept_whole(
    model_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    running.finetune(runs.make_config(model_folder, data, tmp_path / "run", checkpoint={"folder": "kept"}))
    kept = json.loads((tmp_path / "run" / running.CONFIG).read_text())
    assert kept["checkpoint"]["folder"] == str(tmp_path / "kept")
    assert list((tmp_path / "kept").glob("step-*"))
