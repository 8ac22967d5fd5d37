"""A checkpoint into the tensors of a strategy, in place: one part at a time, for any number of processes.

No second copy of a tensor is made: what is there is overwritten, and states that an optimizer makes at its first step
are allocated once, sharded as their parameters are, and handed over.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, ReadItem

from michelangelo import errors
from michelangelo.llm.finetune.checkpoint import local_state, retrying, tensor_file, writing
from michelangelo.llm.finetune.checkpoint.finding import Checkpoint
from michelangelo.llm.finetune.checkpoint.manifest import Chunk, Manifest, TensorEntry
from michelangelo.llm.finetune.checkpoint.state import LoadedState
from michelangelo.llm.finetune.strategy import Strategy

__all__ = ["MODEL", "OPTIMIZER", "load_into", "read_into"]

MODEL = "model."
OPTIMIZER = "optimizer."


def load_into(checkpoint: Checkpoint, strategy: Strategy, retry: retrying.Retry) -> LoadedState:
    """Raises CheckpointError if the checkpoint is of another model, adapter or optimizer; then nothing is changed."""
    manifest, rank = checkpoint.manifest, strategy.rank
    model, optimizer = strategy.model_state(), strategy.optimizer_state()
    _check_names(manifest, MODEL, model)
    for key, entry in _entries(manifest, OPTIMIZER).items():
        if key not in optimizer:
            optimizer[key] = _allocate(entry, model.get(key.partition(".")[2]), strategy.device)
    _check_names(manifest, OPTIMIZER, optimizer)
    local: Mapping[str, Any] = {}
    try:
        if writing.local_file(rank) in manifest.files:
            name = f"{checkpoint.folder}/{writing.local_file(rank)}"
            local = local_state.decode(retry.call(lambda: checkpoint.storage.read(name)))
        read_into(
            {
                **{f"{MODEL}{name}": tensor for name, tensor in model.items()},
                **{f"{OPTIMIZER}{name}": tensor for name, tensor in optimizer.items()},
            },
            checkpoint,
            retry,
        )
    except OSError as e:
        raise errors.CheckpointError(f"{checkpoint.path} cannot be read: {writing.describe(e)}") from e
    strategy.load_state(model, optimizer)
    return LoadedState(manifest.step, local, manifest.shared)


@torch.no_grad()
def read_into(tensors: Mapping[str, Any], checkpoint: Checkpoint, retry: retrying.Retry) -> None:
    """Overwrites tensors or DTensors, which have names and shapes of the manifest. Raises OSError, CheckpointError."""
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    entries = {name: checkpoint.manifest.tensors[name] for name in tensors}
    planner.set_up_planner(dict(tensors), _metadata(entries), False)
    chunks = {(name, chunk.offsets): chunk for name, entry in entries.items() for chunk in entry.chunks}
    wanted: dict[str, dict[Chunk, list[ReadItem]]] = {}
    for item in planner.create_local_plan().items:
        if item.type != LoadItemType.TENSOR:
            raise errors.CheckpointError(f"{item.dest_index.fqn} is no tensor")
        chunk = chunks[item.storage_index.fqn, tuple(item.storage_index.offset or ())]
        wanted.setdefault(chunk.file, {}).setdefault(chunk, []).append(item)
    for file, reads in sorted(wanted.items()):
        name = f"{checkpoint.folder}/{file}"
        with retry.call(functools.partial(checkpoint.storage.open, name)) as stream:
            try:
                _read_file(stream, reads, planner, retry)
            except tensor_file.TensorFileError as e:
                raise errors.CheckpointError(f"{checkpoint.storage.address(name)} is damaged: {e.message}") from e


def _read_file(
    stream: BinaryIO, reads: Mapping[Chunk, list[ReadItem]], planner: DefaultLoadPlanner, retry: retrying.Retry
) -> None:
    header = tensor_file.read_header(stream)
    missing = [chunk.name for chunk in reads if chunk.name not in header]
    if missing:
        raise tensor_file.TensorFileError(f"{missing[0]} is not in it")
    for chunk, items in sorted(reads.items(), key=lambda read: header[read[0].name].begin):
        data = retry.call(functools.partial(tensor_file.read_tensor, stream, header[chunk.name]))
        for item in items:
            part = data
            for dimension, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                part = part.narrow(dimension, offset, length)
            planner.resolve_tensor(item).copy_(part)


def _metadata(entries: Mapping[str, TensorEntry]) -> Metadata:
    return Metadata(
        {
            name: TensorStorageMetadata(
                TensorProperties(dtype=getattr(torch, entry.dtype)),
                torch.Size(entry.shape),
                [ChunkStorageMetadata(torch.Size(c.offsets), torch.Size(c.sizes)) for c in entry.chunks],
            )
            for name, entry in entries.items()
        }
    )


def _allocate(entry: TensorEntry, parameter: Any, default_device: torch.device) -> Any:
    dtype: torch.dtype = getattr(torch, entry.dtype)
    if parameter is None:
        return torch.empty(entry.shape, dtype=dtype, device=default_device)
    if tuple(parameter.shape) == entry.shape:
        return torch.empty_like(parameter, dtype=dtype)
    return torch.empty(entry.shape, dtype=dtype, device=parameter.device)


def _entries(manifest: Manifest, prefix: str) -> dict[str, TensorEntry]:
    return {name.removeprefix(prefix): e for name, e in manifest.tensors.items() if name.startswith(prefix)}


def _check_names(manifest: Manifest, prefix: str, tensors: Mapping[str, Any]) -> None:
    saved = _entries(manifest, prefix)
    what = "model or adapter" if prefix == MODEL else "optimizer or precision"
    if differing := sorted(saved.keys() ^ tensors.keys()):
        raise errors.CheckpointError(
            f"the checkpoint of step {manifest.step} is of another {what}: {len(differing)} names differ, such as "
            f"{differing[0]}; continue with the configuration that it was made with, or start anew with "
            "checkpoint.resume: never"
        )
    for name, entry in saved.items():
        if tuple(tensors[name].shape) != entry.shape:
            raise errors.CheckpointError(
                f"the checkpoint of step {manifest.step} is of another {what}: {name} has shape {entry.shape} there, "
                f"and {tuple(tensors[name].shape)} here"
            )
