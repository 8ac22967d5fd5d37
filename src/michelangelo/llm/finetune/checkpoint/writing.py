"""One checkpoint from tensors in memory to a committed folder: every process writes its part, the first one commits."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

from michelangelo import errors
from michelangelo.llm.finetune.checkpoint import agreeing, finding, retrying, tensor_file
from michelangelo.llm.finetune.checkpoint import manifest as manifests
from michelangelo.llm.finetune.checkpoint.manifest import Chunk, Manifest, TensorEntry
from michelangelo.llm.finetune.checkpoint.planning import Part
from michelangelo.llm.finetune.checkpoint.storage import Storage, Written

__all__ = ["Job", "Outcome", "describe", "local_file", "write"]


@dataclass(frozen=True, slots=True)
class Job:
    """What this process contributes to a checkpoint."""

    folder: str
    step: int
    validation_loss: float | None
    parts: list[Part]
    local: bytes
    shared: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The same in all processes. Without a manifest it failed, and nothing of it is left."""

    manifest: Manifest | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Share:
    """What one process has written."""

    files: Mapping[str, Written]
    entries: tuple[tuple[str, str, tuple[int, ...], Chunk], ...]
    problem: str = ""


def write(job: Job, storage: Storage, processes: agreeing.Processes, retry: retrying.Retry) -> Outcome:
    """Called by all processes together. What goes wrong with files is in the outcome."""
    shares = processes.gather(_attempt(functools.partial(_write_share, job, storage, processes.rank, retry)))
    outcome = None
    if processes.is_first:
        problem = next((share.problem for share in shares if share.problem), "")
        outcome = Outcome(None, problem) if problem else _commit(job, storage, shares, retry)
        if outcome.manifest is None:
            _discard(job, storage, retry)
    agreed = processes.broadcast(outcome)
    assert agreed is not None
    return agreed


def local_file(rank: int) -> str:
    return f"process-{rank:05d}.json"


def describe(error: BaseException) -> str:
    """In a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _attempt(part: Any) -> _Share:
    """Whatever goes wrong is reported to the others, who wait for this process."""
    future: futures.Future[_Share]
    with futures.ThreadPoolExecutor(1, "checkpoint-files") as executor:
        future = executor.submit(part)
    error = future.exception()
    return future.result() if error is None else _Share({}, (), describe(error))


def _write_share(job: Job, storage: Storage, rank: int, retry: retrying.Retry) -> _Share:
    retry.call(lambda: storage.make_folder(job.folder))
    tensors_file, process_file = f"tensors-{rank:05d}.safetensors", local_file(rank)
    tensors = {part.key: part.tensor for part in job.parts}
    files = {
        process_file: retry.call(lambda: storage.write(f"{job.folder}/{process_file}", [job.local])),
        tensors_file: retry.call(lambda: storage.write(f"{job.folder}/{tensors_file}", tensor_file.pieces(tensors))),
    }
    entries = tuple(
        (
            part.tensor_name,
            str(part.tensor.dtype).removeprefix("torch."),
            part.shape,
            Chunk(tensors_file, part.key, part.offsets, tuple(part.tensor.shape)),
        )
        for part in job.parts
    )
    return _Share(files, entries)


def _commit(job: Job, storage: Storage, shares: list[_Share], retry: retrying.Retry) -> Outcome:
    tensors: dict[str, TensorEntry] = {}
    for share in shares:
        for name, dtype, shape, chunk in share.entries:
            known = tensors.get(name, TensorEntry(dtype, shape, ()))
            more = (chunk,) if all(chunk.sizes) else ()
            tensors[name] = TensorEntry(dtype, shape, (*known.chunks, *more))
    files = {name: written for share in shares for name, written in share.files.items()}
    try:
        before = finding.list_all(storage, retry).committed
        number = 1 + max((found.number for _, found in before), default=0)
        manifest = Manifest(job.step, number, len(shares), job.validation_loss, job.shared, files, tensors)
        for name, written in files.items():
            size = retry.call(lambda name=name: storage.size(f"{job.folder}/{name}"))  # type: ignore[misc]
            if size != written.num_bytes:
                return Outcome(None, f"{name} has {size:,} bytes after {written.num_bytes:,} were written")
        retry.call(lambda: storage.commit(f"{job.folder}/{manifests.FILE_NAME}", manifests.encode(manifest)))
    except FileNotFoundError:
        return Outcome(None, "a file of another process is not seen here: choose a folder that all nodes share")
    except OSError as e:
        return Outcome(None, describe(e))
    except errors.CheckpointError as e:
        return Outcome(None, e.message)
    return Outcome(manifest)


def _discard(job: Job, storage: Storage, retry: retrying.Retry) -> None:
    """What cannot be removed now has no manifest, so it is removed when the run starts again."""
    try:
        retry.call(lambda: storage.remove(job.folder, first=manifests.FILE_NAME))
    except OSError:
        return
