"""Checkpoints of several processes: each writes its shards, any number of them loads, one that fails fails for all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.llm.finetune.checkpoint import small_runs
from tests.llm.finetune.checkpoint.flaky_files import FlakyFileSystem

from michelangelo import errors
from michelangelo.llm.finetune.checkpoint import finding
from michelangelo.llm.finetune.recording import Event

pytestmark = pytest.mark.usefixtures("_one_thread")


def save_sharded(rank: int, count: int, folder: Path, num_steps: int) -> list[str]:
    events: list[Event] = []
    run = small_runs.Run(sharded=count > 1, dtype=torch.bfloat16)
    checkpoints = small_runs.open_store(folder, events, rank=rank, world_size=count)
    for _ in range(num_steps):
        run.step()
        checkpoints.save(run.state())
    checkpoints.close()
    return [type(event).__name__ for event in events]


def load_sharded(rank: int, count: int, folder: Path) -> tuple[dict[str, Any], Any, bool]:
    events: list[Event] = []
    run = small_runs.Run(sharded=count > 1, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.zero_()
    checkpoints = small_runs.open_store(folder, events, rank=rank, world_size=count)
    newest = checkpoints.newest()
    assert newest is not None
    loaded = checkpoints.load(newest, run.strategy)
    checkpoints.close()
    run.num_steps = loaded.step
    after_loading = run.tensors()
    run.step()
    found = {name: tensor.float().numpy() for name, tensor in after_loading.items()}
    later = {f"later {name}": tensor.float().numpy() for name, tensor in run.tensors().items()}
    return {**found, **later}, loaded.local.get("rank"), bool(small_runs.alerts(events))


def expected(num_steps: int) -> dict[str, Any]:
    run = small_runs.Run(dtype=torch.bfloat16)
    for _ in range(num_steps):
        run.step()
    found = {name: tensor.float().numpy() for name, tensor in run.tensors().items()}
    run.step()
    return {**found, **{f"later {name}": tensor.float().numpy() for name, tensor in run.tensors().items()}}


def assert_loaded_by(count: int, saved_by: int, folder: Path, meeting: Path) -> None:
    wanted = expected(2)
    for rank, (found, local, alerted) in enumerate(small_runs.processes(count, load_sharded, meeting, folder)):
        assert not alerted
        assert local == (rank if rank < saved_by else None)
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            assert (found[name] == values).all(), name


def test_two_processes_save_and_one_or_three_load(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    kinds = small_runs.processes(2, save_sharded, tmp_path, folder, 2)
    assert kinds == [["Saved", "Saved"]] * 2
    checkpoint = finding.find(str(folder)).checkpoint
    assert sorted(checkpoint.manifest.files) == [
        "process-00000.json",
        "process-00001.json",
        "tensors-00000.safetensors",
        "tensors-00001.safetensors",
    ]
    sizes = [checkpoint.manifest.files[f"tensors-0000{rank}.safetensors"].num_bytes for rank in range(2)]
    assert max(sizes) < 1.5 * min(sizes), "each process writes its share"
    for count in (1, 3):
        assert_loaded_by(count, 2, folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("saved_by", "loaded_by"), [(2, 4), (4, 2), (3, 2), (1, 4), (4, 1)])
def test_any_number_of_processes_loads(tmp_path: Path, saved_by: int, loaded_by: int) -> None:
    folder = tmp_path / "checkpoints"
    small_runs.processes(saved_by, save_sharded, tmp_path, folder, 2)
    assert_loaded_by(loaded_by, saved_by, folder, tmp_path)


def fail_in_the_second(rank: int, count: int, folder: Path) -> tuple[list[str], list[str]]:
    """Both say what happened: the first save fails in one process, the second one works; a load fails in one."""
    FlakyFileSystem.reset()
    events: list[Event] = []
    run = small_runs.Run(sharded=True)
    run.step()
    place = f"flaky://{folder.name}" if rank == 1 else str(folder)
    checkpoints = small_runs.open_store(place, events, rank=rank, world_size=count)
    if rank == 1:
        FlakyFileSystem.failures[:] = [OSError(errno.ENOSPC, "No space left on device")]
    checkpoints.save(run.state(1))
    checkpoints.close()
    shared = small_runs.open_store(folder, events, rank=rank, world_size=count)
    shared.save(run.state(2))
    newest = shared.newest()
    assert newest is not None
    other = small_runs.Run(sharded=True, width=6 if rank == 0 else 8)
    problems = []
    try:
        shared.load(newest, other.strategy)
    except errors.CheckpointError as e:
        problems.append(e.message)
    shared.close()
    return [f"{type(event).__name__} {event.step}" for event in events], problems


def test_what_fails_in_one_process_fails_in_all(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for events, problems in small_runs.processes(2, fail_in_the_second, tmp_path, folder):
        assert events == ["Alert 1", "Saved 2"]
        assert ["0.weight has shape (7, 5) there, and (9, 5) here" in problem for problem in problems] == [True]
    assert [entry.name.split("-")[1] for entry in folder.iterdir()] == ["00000002"]


def separate_folders(rank: int, count: int, folder: Path) -> list[str]:
    events: list[Event] = []
    checkpoints = small_runs.open_store(folder / str(rank), events, rank=rank, world_size=count)
    run = small_runs.Run(sharded=True)
    run.step()
    checkpoints.save(run.state(1))
    checkpoints.close()
    return [alert.message for alert in small_runs.alerts(events)]


def test_a_folder_that_nodes_do_not_share_is_said(tmp_path: Path) -> None:
    for (message,) in small_runs.processes(2, separate_folders, tmp_path, tmp_path):
        assert "choose a folder that all nodes share" in message
