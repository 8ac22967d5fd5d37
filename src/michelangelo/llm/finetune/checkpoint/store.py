"""The checkpoints of a run: saved beside training, the newest whole one found again, old ones removed.

Nothing that goes wrong with saving ends training: it becomes an Alert, and the checkpoints before stay. At most one
save is under way: the next one waits for it. Events are recorded by the thread that calls, at its next call.
"""

from __future__ import annotations

import functools
import json
import secrets
import time
from collections.abc import Callable
from concurrent import futures

import torch

from michelangelo import errors
from michelangelo.llm.finetune.checkpoint import (
    agreeing,
    finding,
    loading,
    local_state,
    planning,
    retention,
    retrying,
    writing,
)
from michelangelo.llm.finetune.checkpoint import manifest as manifests
from michelangelo.llm.finetune.checkpoint.finding import Checkpoint
from michelangelo.llm.finetune.checkpoint.state import LoadedState, RunState
from michelangelo.llm.finetune.checkpoint.storage import Storage
from michelangelo.llm.finetune.config import CheckpointConfig
from michelangelo.llm.finetune.recording import Alert, Event, Saved
from michelangelo.llm.finetune.strategy import Strategy

__all__ = ["CheckpointStore"]


class CheckpointStore:
    """All processes of a run make one and call the same methods in the same order. The run owns the folder."""

    def __init__(
        self,
        folder: str,
        config: CheckpointConfig,
        *,
        rank: int,
        world_size: int,
        record: Callable[[Event], None],
        retry: retrying.Retry | None = None,
        buffers: planning.HostBuffers | None = None,
    ) -> None:
        """Raises CheckpointError if no file system answers to the folder's protocol."""
        self._storage = Storage(folder)
        self._config = config
        self._record = record
        self._retry = retry or retrying.Retry(config.upload_attempts)
        self._processes = agreeing.Processes(rank, world_size)
        self._buffers = buffers or planning.HostBuffers(num_sharing=_num_sharing(world_size))
        self._is_told = False
        self._executor = futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: futures.Future[list[Event]] | None = None
        self._pending_step = 0

    def save(self, state: RunState, *, validation_loss: float | None = None) -> None:
        """Returns when the tensors may change again. What goes wrong later is an Alert of the next call."""
        self.wait()
        started = time.monotonic()
        tensors = {
            **{f"{loading.MODEL}{name}": tensor for name, tensor in state.model.items()},
            **{f"{loading.OPTIMIZER}{name}": tensor for name, tensor in state.optimizer.items()},
        }
        parts = planning.plan(tensors, self._processes)
        beside = self._config.asynchronous and self._buffers.has_room(parts)
        if self._config.asynchronous and not beside:
            self._tell_that_it_waits(state.step)
        folder = f"{manifests.FOLDER_PREFIX}{state.step:08d}-{secrets.token_hex(4)}"
        job = writing.Job(
            folder=self._processes.broadcast(folder),
            step=state.step,
            validation_loss=validation_loss,
            parts=self._buffers.copy(parts) if beside else parts,
            local=local_state.encode(state.local),
            shared=json.loads(json.dumps(state.shared)),
        )
        self._pending = self._executor.submit(self._write, job, started)
        self._pending_step = state.step
        if not beside:
            self.wait()

    def newest(self) -> Checkpoint | None:
        """The newest whole one. Half-written ones are deleted, damaged ones set aside, with an Alert that says so.
        Those of earlier runs (`checkpoint.newer_than`) are left alone.

        Raises CheckpointError where the storage cannot be read: then nobody knows what there is.
        """
        self.wait()
        found = self._processes.first(functools.partial(finding.list_all, self._storage, self._retry))
        damaged = list(found.damaged)
        chosen = None
        earlier = self._config.newer_than or 0
        for folder, manifest in found.committed:
            if manifest.number <= earlier:
                break
            checkpoint = Checkpoint(self._storage, folder, manifest)
            if not (problem := self._problem_of(checkpoint)):
                chosen = checkpoint
                break
            damaged.append((folder, problem))
        self._alert_damaged(damaged, chosen)
        if self._processes.is_first:
            self._clear(found.unfinished, [folder for folder, _ in damaged])
        return chosen

    def named(self, path: str) -> Checkpoint:
        """One by its path or URL, perhaps of another run. Raises CheckpointError: no other one is taken instead."""
        self.wait()
        manifest = self._processes.first(lambda: finding.open_named(path, self._retry).manifest)
        storage, folder = finding.split(path)
        return Checkpoint(storage, folder, manifest)

    def load(self, checkpoint: Checkpoint, strategy: Strategy) -> LoadedState:
        """Overwrites the tensors of `strategy`. Raises CheckpointError in all processes if it fails in one."""
        self.wait()
        return self._processes.together(lambda: loading.load_into(checkpoint, strategy, self._retry))

    def report(self) -> None:
        """Records what came of the last save, if that is known by now; never waits."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Until the last save is committed, or has failed."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        error = pending.exception()
        if error is None:
            for event in pending.result():
                self._record(event)
        else:
            self._record(self._failed(self._pending_step, writing.describe(error)))

    def close(self) -> None:
        self.wait()
        self._executor.shutdown()
        self._processes.close()

    def _write(self, job: writing.Job, started: float) -> list[Event]:
        """In the thread beside training: what is to be told about it."""
        outcome = writing.write(job, self._storage, self._processes, self._retry)
        if outcome.manifest is None:
            return [self._failed(job.step, outcome.problem)]
        path = self._storage.address(job.folder)
        events: list[Event] = [Saved(job.step, path, outcome.manifest.num_bytes, time.monotonic() - started)]
        if self._processes.is_first and (problem := self._remove_old()):
            events.append(Alert(job.step, "CheckpointNotRemoved", problem))
        return events

    def _tell_that_it_waits(self, step: int) -> None:
        """Once: the next ones wait too."""
        if not self._is_told:
            message = "the host has no memory for a copy of the state, so training waits while checkpoints are written"
            self._record(Alert(step, "CheckpointWaits", message))
        self._is_told = True

    def _failed(self, step: int, problem: str) -> Alert:
        message = f"step {step} could not be saved to {self._storage.folder}: {problem}; training goes on"
        return Alert(step, "CheckpointFailed", f"{message}, and earlier checkpoints stay: free space, or check access")

    def _remove_old(self) -> str:
        """After a commit only, so a whole checkpoint is always left. What went wrong, or nothing."""
        try:
            found = finding.list_all(self._storage, self._retry)
            folders = {manifest.number: folder for folder, manifest in found.committed}
            old = retention.superfluous(
                [manifest for _, manifest in found.committed],
                keep_last=self._config.keep_last,
                keep_best=self._config.keep_best,
            )
            for folder in (*(folders[manifest.number] for manifest in old), *found.set_aside):
                self._retry.call(functools.partial(self._storage.remove, folder, first=manifests.FILE_NAME))
        except OSError as e:
            return f"an old checkpoint in {self._storage.folder} could not be removed: {writing.describe(e)}"
        except errors.CheckpointError as e:
            return f"old checkpoints were not removed: {e.message}"
        return ""

    def _problem_of(self, checkpoint: Checkpoint) -> str:
        """Each process reads its share of the files."""
        processes = self._processes
        share = sorted(checkpoint.manifest.files)[processes.rank :: processes.world_size]
        problem = processes.together(lambda: finding.problem_of(checkpoint, share, self._retry))
        return processes.broadcast(next((one for one in processes.gather(problem) if one), ""))

    def _alert_damaged(self, damaged: list[tuple[str, str]], chosen: Checkpoint | None) -> None:
        instead = f"{chosen.path} (step {chosen.step}) is used instead" if chosen else "there is no other one to use"
        for folder, problem in damaged:
            message = f"{self._storage.address(folder)} is damaged: {problem}; {instead}"
            self._record(Alert(chosen.step if chosen else 0, "CheckpointDamaged", message))

    def _clear(self, unfinished: tuple[str, ...], damaged: list[str]) -> None:
        try:
            for folder in unfinished:
                self._retry.call(functools.partial(self._storage.remove, folder, first=manifests.FILE_NAME))
            for folder in damaged:
                old, new = f"{folder}/{manifests.FILE_NAME}", f"{folder}/{manifests.DAMAGED_NAME}"
                self._retry.call(functools.partial(self._storage.rename, old, new))
        except OSError as e:
            self._record(Alert(0, "CheckpointNotRemoved", f"{self._storage.folder}: {writing.describe(e)}"))


def _num_sharing(world_size: int) -> int:
    """Processes of the run on this host, at most."""
    return min(world_size, torch.cuda.device_count() or world_size)
