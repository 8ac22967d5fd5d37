"""Looking for checkpoints, and looking whether one is whole. It reads only: `store` sets aside what is damaged."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from michelangelo import errors
from michelangelo.llm.finetune.checkpoint import manifest as manifests
from michelangelo.llm.finetune.checkpoint import retrying
from michelangelo.llm.finetune.checkpoint.manifest import Manifest
from michelangelo.llm.finetune.checkpoint.storage import Storage

__all__ = ["Checkpoint", "Chosen", "Found", "find", "list_all", "newest_number", "open_named", "problem_of", "split"]

_RETRY: Final = retrying.Retry()
_IO_ERRORS: Final = (errno.EIO, errno.ENOENT, errno.EISDIR)
"""The data is gone, not the way to it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that was committed; whether its files are still what they were is another question."""

    storage: Storage
    folder: str
    manifest: Manifest

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def path(self) -> str:
        return self.storage.address(self.folder)


@dataclass(frozen=True, slots=True)
class Chosen:
    checkpoint: Checkpoint
    skipped: tuple[str, ...]
    """What was damaged, in sentences."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder of checkpoints."""

    committed: tuple[tuple[str, Manifest], ...]
    """Folders and manifests, newest first."""
    damaged: tuple[tuple[str, str], ...]
    """Folders whose manifests cannot be read, and why."""
    unfinished: tuple[str, ...]
    """Folders without a manifest."""
    set_aside: tuple[str, ...]


def list_all(storage: Storage, retry: retrying.Retry) -> Found:
    """Raises CheckpointError where the storage cannot be reached."""
    committed: list[tuple[str, Manifest]] = []
    damaged: list[tuple[str, str]] = []
    unfinished: list[str] = []
    set_aside: list[str] = []
    try:
        folders = retry.call(storage.folders)
        for folder in sorted(folders):
            if not folder.startswith(manifests.FOLDER_PREFIX):
                continue
            if manifests.FILE_NAME in folders[folder]:
                try:
                    data = retry.call(lambda name=f"{folder}/{manifests.FILE_NAME}": storage.read(name))  # type: ignore[misc]
                    committed.append((folder, manifests.decode(data)))
                except errors.CheckpointError as e:
                    damaged.append((folder, e.message))
            else:
                (set_aside if manifests.DAMAGED_NAME in folders[folder] else unfinished).append(folder)
    except OSError as e:
        raise errors.CheckpointError(
            f"checkpoint.folder {storage.folder} cannot be read: {_text(e)}; check the address and the access"
        ) from e
    committed.sort(key=lambda found: (-found[1].number, -found[1].step))
    return Found(tuple(committed), tuple(damaged), tuple(unfinished), tuple(set_aside))


def problem_of(checkpoint: Checkpoint, files: Iterable[str], retry: retrying.Retry) -> str:
    """What is wrong with these files; empty: nothing. Raises CheckpointError where they cannot be reached."""
    storage = checkpoint.storage
    for file in files:
        expected, name = checkpoint.manifest.files[file], f"{checkpoint.folder}/{file}"
        try:
            size = retry.call(lambda name=name: storage.size(name))  # type: ignore[misc]
            if size != expected.num_bytes:
                return f"{file} has {size:,} bytes instead of {expected.num_bytes:,}"
            if retry.call(lambda name=name: storage.digest(name)) != expected.sha256:  # type: ignore[misc]
                return f"{file} does not have the digest it was written with"
        except FileNotFoundError:
            return f"{file} is missing"
        except OSError as e:
            if e.errno in _IO_ERRORS:
                return f"{file} cannot be read: {_text(e)}"
            raise errors.CheckpointError(f"{storage.address(name)} cannot be read: {_text(e)}") from e
    return ""


def find(folder: str, *, step: int | None = None, retry: retrying.Retry = _RETRY) -> Chosen:
    """The newest whole checkpoint, or the newest of a step. Raises CheckpointError that names what there is."""
    storage = Storage(folder)
    found = list_all(storage, retry)
    begin = manifests.FOLDER_PREFIX + (f"{step:08d}-" if step is not None else "")
    problems = [f"{storage.address(name)} is damaged: {why}" for name, why in found.damaged if name.startswith(begin)]
    for name, manifest in found.committed:
        if step is not None and manifest.step != step:
            continue
        checkpoint = Checkpoint(storage, name, manifest)
        problem = problem_of(checkpoint, sorted(manifest.files), retry)
        if not problem:
            return Chosen(checkpoint, tuple(problems))
        problems.append(f"{checkpoint.path} is damaged: {problem}")
    wanted = "no whole checkpoint" if step is None else f"no whole checkpoint of step {step}"
    if problems:
        raise errors.CheckpointError(f"{storage.folder}: {wanted}; {'; '.join(problems)}")
    steps = ", ".join(str(manifest.step) for _, manifest in reversed(found.committed))
    raise errors.CheckpointError(
        f"{storage.folder}: {wanted}" + (f"; there are those of steps {steps}" if steps else "")
    )


def newest_number(folder: str, *, retry: retrying.Retry = _RETRY) -> int:
    """Of the newest checkpoint that was committed, whole or not; 0: there is none. Raises CheckpointError."""
    return max((manifest.number for _, manifest in list_all(Storage(folder), retry).committed), default=0)


def open_named(path: str, retry: retrying.Retry = _RETRY) -> Checkpoint:
    """One checkpoint by its own path or URL. Raises CheckpointError if there is none, or a damaged one."""
    storage, folder = split(path)
    try:
        manifest = manifests.decode(retry.call(lambda: storage.read(f"{folder}/{manifests.FILE_NAME}")))
    except OSError as e:
        raise errors.CheckpointError(
            f"{path}: is no checkpoint: its {manifests.FILE_NAME} cannot be read ({_text(e)})"
        ) from e
    except errors.CheckpointError as e:
        raise errors.CheckpointError(f"{path}: is damaged: {e.message}") from e
    checkpoint = Checkpoint(storage, folder, manifest)
    if problem := problem_of(checkpoint, sorted(manifest.files), retry):
        raise errors.CheckpointError(f"{path}: is damaged: {problem}; choose another checkpoint")
    return checkpoint


def split(path: str) -> tuple[Storage, str]:
    """The path or URL of a checkpoint → where it lies, and its folder there."""
    place, mark, query = path.partition("?") if "://" in path else (path, "", "")
    parent, slash, folder = place.rstrip("/").rpartition("/")
    return Storage(f"{parent or slash or '.'}{mark}{query}"), folder


def _text(e: OSError) -> str:
    return e.strerror or str(e) or type(e).__name__
