"""What the reference of DPO says of each answer, computed once before the first step and kept beside the run.

Then training needs no second model and no second forward pass. Answers are known by their tokens, so the order of the
data, the size of batches and the number of processes may change. It knows no loss: `preference` has the forward pass.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import nn

from michelangelo import errors
from michelangelo.llm.finetune import attention
from michelangelo.llm.finetune.batch import Batch, Batches, PreferenceBatch
from michelangelo.llm.finetune.checkpoint import agreeing
from michelangelo.llm.finetune.strategy import Strategy

__all__ = ["ReferencedBatches", "Table", "digest_of", "prepare"]

Table = dict[bytes, float]
"""Log-probabilities of whole answers in nats (float32), by the digest of prompt and answer."""

_DIGEST_BYTES: Final = 16


class ReferencedBatches:
    """Batches that bring what the reference says of them along."""

    def __init__(self, inner: Batches, table: Table) -> None:
        self._inner = inner
        self._table = table

    def next(self) -> Batch | PreferenceBatch | None:
        """Raises DatasetError for an answer that was not there when the reference was asked."""
        batch = self._inner.next()
        if not isinstance(batch, PreferenceBatch):
            return batch
        try:
            found = [
                [self._table[key] if key else 0.0 for key in _keys(side)] for side in (batch.chosen, batch.rejected)
            ]
        except KeyError as e:
            raise errors.DatasetError(
                "an answer of the data is not among those that the reference was asked for: the data changed since the "
                "run began; start anew in another output folder, or set preference.precompute_reference: false"
            ) from e
        return dataclasses.replace(batch, reference=torch.tensor(found, dtype=torch.float32))

    def next_epoch(self) -> None:
        self._inner.next_epoch()

    def state(self) -> Mapping[str, Any]:
        return self._inner.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._inner.restore(state)

    def num_batches(self) -> int | None:
        return self._inner.num_batches()


def digest_of(model: nn.Module) -> str:
    """Of all weights and buffers, which are whole here: before they are divided. Reads them once, about 1 GB/s."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def prepare(
    folder: Path,
    key: str,
    data: Sequence[Batches],
    strategy: Strategy,
    ask: Callable[[PreferenceBatch], torch.Tensor],
) -> Table:
    """Of every answer in a pass over each of `data`, which stay where they are: read if it is in `folder` already, else
    asked for, batch by batch, and written there. All processes call it together, and get the same.

    `key` says which model, and how it computes; `ask` gives [2, pairs] float32 on the host, and is called as often in
    every process. Raises SettingsError if the folder cannot be written.
    """
    key = json.dumps([key, *(_identity(batches) for batches in data)], sort_keys=True)
    path = folder / f"reference-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.safetensors"
    table = _read(path)
    has_it = strategy.sum(torch.tensor([float(table is not None)], device=strategy.device))
    everywhere = strategy.sum(torch.ones(1, device=strategy.device))
    if table is not None and float(has_it) == float(everywhere):
        return table
    mine: Table = {}
    with attention.fast_kernels(strategy.device):
        for batches in data:
            for batch in _a_pass(batches):
                values = ask(batch)
                for side, said in zip((batch.chosen, batch.rejected), values, strict=True):
                    mine.update((one, value) for one, value in zip(_keys(side), said.tolist(), strict=True) if one)
    processes = agreeing.Processes(strategy.rank, strategy.world_size)
    try:
        whole = processes.broadcast({one: value for part in processes.gather(mine) for one, value in part.items()})
    finally:
        processes.close()
    if strategy.rank == 0:
        _write(path, whole)
    return whole


def _identity(batches: Batches) -> Any:
    """Of the files, the settings and the tokenizer."""
    start = batches.state()
    batches.next()
    found = batches.state().get("identity")
    batches.restore(start)
    return found


def _a_pass(batches: Batches) -> Iterator[PreferenceBatch]:
    start = batches.state()
    while (batch := batches.next()) is not None:
        assert isinstance(batch, PreferenceBatch)
        yield batch
    batches.restore(start)


def _keys(side: Batch) -> list[bytes]:
    """Of each row, by its tokens and which of them count; empty for a row of padding. The batch is on the host."""
    lengths = (side.document_ids >= 0).sum(1).tolist()
    keys = []
    for row, length in enumerate(lengths):
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for tensor in (side.input_ids, side.labels):
            digest.update(tensor[row, :length].contiguous().numpy().tobytes())
        keys.append(digest.digest() if length else b"")
    return keys


def _read(path: Path) -> Table | None:
    """None if it is not there, or not whole: then it is made anew."""
    try:
        found = safetensors.torch.load_file(path)
        keys, values = found["keys"].numpy(), found["values"].tolist()
    except (OSError, KeyError, safetensors.SafetensorError):
        return None
    return {key.tobytes(): value for key, value in zip(keys, values, strict=True)}


def _write(path: Path, table: Table) -> None:
    unfinished = path.with_suffix(".unfinished")
    keys = torch.frombuffer(bytearray(b"".join(table)), dtype=torch.uint8).view(len(table), _DIGEST_BYTES)
    try:
        safetensors.torch.save_file({"keys": keys, "values": torch.tensor(list(table.values()))}, unfinished)
        os.replace(unfinished, path)
    except (OSError, safetensors.SafetensorError) as e:
        raise errors.SettingsError(f"output {path.parent}: cannot be written: {e}") from e
