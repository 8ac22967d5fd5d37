"""Checkpoints of one process: what is saved comes back, whatever goes wrong in between is said and harms nothing."""

from __future__ import annotations

import errno
import json
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import load_file
from tests.llm.finetune.checkpoint import small_runs
from tests.llm.finetune.checkpoint.flaky_files import FlakyFileSystem

from michelangelo import errors
from michelangelo.llm.finetune.checkpoint import finding, planning, retrying
from michelangelo.llm.finetune.recording import Event, Saved

pytestmark = pytest.mark.usefixtures("_one_thread")


def saved_steps(folder: Path | str) -> list[int]:
    system, path = fsspec.url_to_fs(str(folder))
    names = [entry.rstrip("/").rpartition("/")[2] for entry in system.ls(path, detail=False)]
    return sorted(int(name.split("-")[1]) for name in names)


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("place", ["local", "memory"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_gives_what_was_saved(tmp_path: Path, asynchronous: bool, place: str, dtype: torch.dtype) -> None:
    folder = str(tmp_path / "checkpoints") if place == "local" else f"memory://{tmp_path.name}"
    events: list[Event] = []
    run = small_runs.Run(dtype=dtype)
    checkpoints = small_runs.open_store(folder, events, asynchronous=asynchronous)
    for _ in range(3):
        run.step()
        checkpoints.save(run.state(note="a"))
    checkpoints.close()
    other = small_runs.Run(dtype=dtype)
    again = small_runs.open_store(folder, events)
    newest = again.newest()
    assert newest is not None
    loaded = again.load(newest, other.strategy)
    again.close()
    assert small_runs.same(run.tensors(), other.tensors())
    assert (loaded.step, loaded.shared["note"]) == (3, "a")
    assert torch.equal(loaded.local["random"], torch.get_rng_state())
    assert [event.path for event in events if isinstance(event, Saved)][2:] == [newest.path]
    assert len(events) == 3
    other.num_steps = run.num_steps
    run.step()
    other.step()
    assert small_runs.same(run.tensors(), other.tensors())


def test_save_returns_before_the_files_are_written(flaky: type[FlakyFileSystem]) -> None:
    events: list[Event] = []
    run = small_runs.Run()
    run.step()
    before = run.tensors()
    flaky.gate.clear()
    checkpoints = small_runs.open_store("flaky://run", events)
    checkpoints.save(run.state())
    run.step()
    checkpoints.report()
    assert events == []
    flaky.gate.set()
    newest = checkpoints.newest()
    assert newest is not None
    checkpoints.load(newest, run.strategy)
    assert small_runs.same(run.tensors(), before)
    checkpoints.close()


def test_training_waits_where_the_host_has_no_memory_for_a_copy(flaky: type[FlakyFileSystem]) -> None:
    events: list[Event] = []
    run = small_runs.Run()
    run.step()
    size = sum(tensor.numel() * tensor.element_size() for tensor in run.tensors().values())
    room = [size]
    buffers = planning.HostBuffers(num_sharing=2, available=lambda: room[0])
    checkpoints = small_runs.open_store("flaky://run", events, buffers=buffers)
    for step in (1, 2):
        checkpoints.save(run.state(step))
        assert isinstance(events[-1], Saved), "it is written when save returns"
    (alert,) = small_runs.alerts(events)
    assert (alert.step, alert.kind) == (1, "CheckpointWaits")
    room[0] = 3 * size
    flaky.gate.clear()
    checkpoints.save(run.state(3))
    assert len(events) == 3
    flaky.gate.set()
    room[0] = 0  # what was taken is used again
    checkpoints.save(run.state(4))
    assert len(events) == 4
    checkpoints.close()
    assert len(small_runs.alerts(events)) == 1


def test_report_tells_what_is_known_without_waiting(flaky: type[FlakyFileSystem]) -> None:
    events: list[Event] = []
    checkpoints = small_runs.open_store("flaky://run", events)
    checkpoints.save(small_runs.Run().state(1))
    deadline = time.monotonic() + 60
    while not events and time.monotonic() < deadline:
        checkpoints.report()
    assert [type(event) for event in events] == [Saved]
    checkpoints.report()
    assert len(events) == 1
    checkpoints.close()


def test_tensors_are_read_by_the_safetensors_library(tmp_path: Path) -> None:
    run = small_runs.Run(dtype=torch.bfloat16)
    run.step()
    checkpoints = small_runs.open_store(tmp_path, [])
    checkpoints.save(run.state())
    checkpoints.close()
    (file,) = tmp_path.glob("step-*/tensors-00000.safetensors")
    found = load_file(file)
    assert small_runs.same(
        {name: tensor for name, tensor in found.items() if name.startswith("model.")},
        {f"model.{name}": tensor for name, tensor in run.strategy.model_state().items()},
    )


def test_last_and_best_stay(tmp_path: Path) -> None:
    run = small_runs.Run()
    checkpoints = small_runs.open_store(tmp_path, [], keep_last=2, keep_best=1)
    for step, loss in enumerate([3.0, 1.0, 1.0, 2.0, None, float("nan"), 5.0], start=1):
        run.step()
        checkpoints.save(run.state(), validation_loss=loss)
        checkpoints.wait()
        assert finding.find(str(tmp_path)).checkpoint.step == step
    checkpoints.close()
    assert saved_steps(tmp_path) == [2, 6, 7]
    assert finding.find(str(tmp_path), step=2).checkpoint.manifest.validation_loss == 1.0


def test_the_last_written_is_the_newest_after_going_back(tmp_path: Path) -> None:
    run = small_runs.Run()
    checkpoints = small_runs.open_store(tmp_path, [], keep_last=9)
    run.step()
    for step in (10, 20, 10):
        checkpoints.save(run.state(step, tries=step))
    newest = checkpoints.newest()
    checkpoints.close()
    assert newest is not None
    assert (newest.step, newest.manifest.number) == (10, 3)


def test_an_upload_is_tried_again(flaky: type[FlakyFileSystem]) -> None:
    pauses: list[float] = []
    events: list[Event] = []
    run = small_runs.Run()
    retry = retrying.Retry(attempts=4, first_pause_seconds=1.0, longest_pause_seconds=3.0, pause=pauses.append)
    checkpoints = small_runs.open_store("flaky://run", events, retry=retry)
    flaky.failures[:] = [ConnectionError("gone"), TimeoutError("late"), OSError(errno.EIO, "input/output error")]
    checkpoints.save(run.state(1))
    checkpoints.close()
    assert pauses == [1.0, 2.0, 3.0]
    assert [type(event) for event in events] == [Saved]


@pytest.mark.parametrize("passing", range(3))
def test_a_failed_save_is_an_alert_and_leaves_the_one_before(flaky: type[FlakyFileSystem], passing: int) -> None:
    events: list[Event] = []
    run = small_runs.Run()
    run.step()
    checkpoints = small_runs.open_store("flaky://run", events)
    checkpoints.save(run.state(1))
    checkpoints.wait()
    flaky.failures[:] = [None] * passing + [ConnectionError("no route to the store")] * 3
    checkpoints.save(run.state(2))
    checkpoints.wait()
    (alert,) = small_runs.alerts(events)
    assert (alert.step, alert.kind) == (2, "CheckpointFailed")
    assert "step 2" in alert.message
    assert "no route to the store" in alert.message
    assert "training goes on" in alert.message
    assert saved_steps("flaky://run") == [1]
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 1
    checkpoints.save(run.state(3))
    checkpoints.close()
    assert saved_steps("flaky://run") == [1, 3]


def test_a_failure_outside_of_files_is_an_alert_too(flaky: type[FlakyFileSystem]) -> None:
    class Refused(RuntimeError):
        """What a store's own client may raise."""

    flaky.failures[:] = [Refused("the token has expired")]  # type: ignore[list-item]
    events: list[Event] = []
    checkpoints = small_runs.open_store("flaky://run", events)
    checkpoints.save(small_runs.Run().state(1))
    checkpoints.close()
    assert ["the token has expired" in alert.message for alert in small_runs.alerts(events)] == [True]


def fill_the_disk(folder: Path) -> list[str]:
    """In a process of its own: files may grow to 20 kB only; a checkpoint that fits, and one that does not."""
    events: list[Event] = []
    small, large = small_runs.Run(), small_runs.Run(width=6000)
    checkpoints = small_runs.open_store(folder, events)
    checkpoints.save(small.state(1))
    checkpoints.wait()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    checkpoints.save(large.state(2))
    checkpoints.close()
    return [alert.message for alert in small_runs.alerts(events)]


def _alone(rank: int, count: int, work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


def test_a_full_disk_is_an_alert_and_nothing_half_written_stays(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    ((message,),) = small_runs.processes(1, _alone, tmp_path, fill_the_disk, folder)
    assert "File too large" in message
    assert "free space" in message
    assert saved_steps(folder) == [1]
    assert finding.find(str(folder)).checkpoint.step == 1


def test_a_full_disk_is_not_tried_again(flaky: type[FlakyFileSystem]) -> None:
    pauses: list[float] = []
    events: list[Event] = []
    retry = retrying.Retry(attempts=4, pause=pauses.append)
    checkpoints = small_runs.open_store("flaky://run", events, retry=retry)
    flaky.failures[:] = [OSError(errno.ENOSPC, "No space left on device")]
    checkpoints.save(small_runs.Run().state(1))
    checkpoints.close()
    assert pauses == []
    assert "No space left on device" in small_runs.alerts(events)[0].message


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit": (lambda folder: flip(folder / "tensors-00000.safetensors"), "digest"),
    "short": (lambda folder: (folder / "tensors-00000.safetensors").write_bytes(b"abc"), "3 bytes instead of"),
    "missing": (lambda folder: (folder / "tensors-00000.safetensors").unlink(), "missing"),
    "process": (lambda folder: flip(folder / "process-00000.json"), "digest"),
    "manifest": (lambda folder: flip(folder / "manifest.json"), "digest"),
    "empty": (lambda folder: (folder / "manifest.json").write_bytes(b""), "digest"),
    "other": (lambda folder: (folder / "manifest.json").write_text('{"sha256":"0","content":[]}\n'), "digest"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_is_used_when_the_newest_is_damaged(tmp_path: Path, damage: str) -> None:
    events: list[Event] = []
    run = small_runs.Run()
    checkpoints = small_runs.open_store(tmp_path, events)
    for step in (1, 2):
        run.step()
        checkpoints.save(run.state(step))
    checkpoints.close()
    (folder,) = tmp_path.glob("step-00000002-*")
    change, reason = DAMAGES[damage]
    change(folder)
    again = small_runs.open_store(tmp_path, events)
    newest = again.newest()
    assert newest is not None
    assert newest.step == 1
    (alert,) = small_runs.alerts(events)
    assert alert.kind == "CheckpointDamaged"
    assert str(folder) in alert.message
    assert reason in alert.message
    assert f"{newest.path} (step 1) is used instead" in alert.message
    again.newest()
    assert len(small_runs.alerts(events)) == 1, "what was set aside is not found again"
    assert folder.exists(), "it can be looked at"
    run.step()
    again.save(run.state(3))
    again.close()
    assert saved_steps(tmp_path) == [1, 3]


def test_all_damaged_is_said_and_nothing_is_loaded(tmp_path: Path) -> None:
    events: list[Event] = []
    checkpoints = small_runs.open_store(tmp_path, events)
    checkpoints.save(small_runs.Run().state(1))
    checkpoints.wait()
    flip(next(tmp_path.glob("step-*/tensors-*")))
    assert checkpoints.newest() is None
    assert "there is no other one to use" in small_runs.alerts(events)[0].message
    checkpoints.close()


def test_half_written_ones_are_removed(tmp_path: Path) -> None:
    events: list[Event] = []
    (tmp_path / "step-00000007-aaaa").mkdir(parents=True)
    (tmp_path / "step-00000007-aaaa" / "tensors-00000.safetensors").write_bytes(b"half")
    (tmp_path / "notes").mkdir()
    checkpoints = small_runs.open_store(tmp_path, events)
    assert checkpoints.newest() is None
    checkpoints.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes"]
    assert events == []


def test_a_store_that_cannot_be_reached_is_not_taken_for_an_empty_one(flaky: type[FlakyFileSystem]) -> None:
    checkpoints = small_runs.open_store("flaky://run", [])
    checkpoints.save(small_runs.Run().state(1))
    checkpoints.wait()
    flaky.reading[:] = [ConnectionError("no route to the store")] * 3
    with pytest.raises(errors.CheckpointError, match="no route to the store"):
        checkpoints.newest()
    assert checkpoints.newest() is not None
    checkpoints.close()


def test_a_checkpoint_of_another_model_changes_nothing(tmp_path: Path) -> None:
    run, other = small_runs.Run(), small_runs.Run(width=9)
    run.step()
    other.step()
    checkpoints = small_runs.open_store(tmp_path, [])
    checkpoints.save(run.state(1))
    newest = checkpoints.newest()
    assert newest is not None
    before = other.tensors()
    with pytest.raises(errors.CheckpointError, match=r"another model or adapter: 0.weight has shape \(7, 5\) there"):
        checkpoints.load(newest, other.strategy)
    assert small_runs.same(before, other.tensors())
    mixed = small_runs.Run(dtype=torch.bfloat16)
    with pytest.raises(errors.CheckpointError, match="another optimizer or precision: 6 names differ"):
        checkpoints.load(newest, mixed.strategy)
    checkpoints.close()


def test_named_takes_that_one_or_none(tmp_path: Path) -> None:
    run = small_runs.Run()
    run.step()
    checkpoints = small_runs.open_store(tmp_path / "a", [])
    checkpoints.save(run.state(1))
    checkpoints.save(run.state(2))
    checkpoints.close()
    (first,) = (tmp_path / "a").glob("step-00000001-*")
    other = small_runs.open_store(tmp_path / "b", [])
    assert other.named(str(first)).step == 1
    flip(first / "tensors-00000.safetensors")
    with pytest.raises(errors.CheckpointError, match=r"is damaged: tensors-00000\.safetensors"):
        other.named(str(first))
    with pytest.raises(errors.CheckpointError, match="is no checkpoint"):
        other.named(str(tmp_path / "nothing"))
    other.close()


def test_find_names_what_there_is(tmp_path: Path) -> None:
    checkpoints = small_runs.open_store(tmp_path, [])
    for step in (5, 9):
        checkpoints.save(small_runs.Run().state(step))
    checkpoints.close()
    with pytest.raises(errors.CheckpointError, match="no whole checkpoint of step 7; there are those of steps 5, 9"):
        finding.find(str(tmp_path), step=7)
    flip(next(tmp_path.glob("step-00000009*/manifest.json")))
    chosen = finding.find(str(tmp_path))
    assert chosen.checkpoint.step == 5
    assert ["step-00000009" in problem and "is damaged" in problem for problem in chosen.skipped] == [True]
    with pytest.raises(errors.CheckpointError, match=r"step-00000009-\w+ is damaged"):
        finding.find(str(tmp_path), step=9)


def test_an_unknown_kind_of_folder_is_refused() -> None:
    with pytest.raises(errors.CheckpointError, match=r"checkpoint\.folder ftq://bucket"):
        small_runs.open_store("ftq://bucket", [])


def test_shared_state_has_to_be_json(tmp_path: Path) -> None:
    checkpoints = small_runs.open_store(tmp_path, [])
    with pytest.raises(TypeError):
        checkpoints.save(small_runs.Run().state(1, what=json))
    checkpoints.close()
