"""Packed rows → tensors: global batch i is `micro_batch` rows for each process, in the order of their ranks.

At the end of a pass missing rows are made up by rows of padding, so that every process has as many batches, and of the
same shapes, as the others. A padded position has document -1, label IGNORED and positions from 0 on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from michelangelo.llm.finetune.batch import IGNORED, Batch, PreferenceBatch
from michelangelo.llm.finetune.data.rows import PackedRow, Pair, Sample
from michelangelo.llm.finetune.data.stream import Stream

__all__ = ["Produced", "Share", "batches", "count_batches", "make_batch"]

_MULTIPLE: Final = 64
"""Unpacked batches are as wide as their longest row, rounded up: few different shapes, and even ones."""

_COUNTED_ROWS: Final = 20_000
"""Half a minute of tokenising at 500 tokens a row; and the samples are kept for the run."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which rows of a global batch are of this process."""

    micro_batch: int
    data_rank: int = 0
    data_parallel: int = 1

    @property
    def global_rows(self) -> int:
        return self.micro_batch * self.data_parallel


@dataclass(frozen=True, slots=True)
class Produced:
    """A batch of this process, and where the stream is after it."""

    batch: Batch | PreferenceBatch
    state: Mapping[str, Any]
    report: Mapping[str, Any]


def batches(stream: Stream, share: Share, state: Mapping[str, Any]) -> Iterator[Produced]:
    """From a position on to the end of the pass. Raises DatasetError, CheckpointError."""
    made = list(state.get("made", (0, 0, 0)))
    group: list[PackedRow] = []
    placed = None
    for placed in stream.rows(state):
        group.append(placed.row)
        if len(group) == share.global_rows:
            yield _produced(stream, share, group, placed.state, placed.report, made)
            group = []
    if group and placed is not None:
        yield _produced(stream, share, group, placed.state, placed.report, made)


def count_batches(stream: Stream, share: Share) -> int:
    """Of a process, in a pass over data that is not streamed: reads and packs it, without tensors; of more than 20,000
    rows an estimate."""
    return -(-stream.num_rows(exact_up_to=_COUNTED_ROWS) // share.global_rows)


def _produced(
    stream: Stream,
    share: Share,
    group: Sequence[PackedRow],
    state: Mapping[str, Any],
    report: Mapping[str, Any],
    made: list[int],
) -> Produced:
    parts = [group[rank * share.micro_batch : (rank + 1) * share.micro_batch] for rank in range(share.data_parallel)]
    for part in parts:
        width = _width(stream, part)
        made[0] += sum(sum(len(sample) for sample in _samples(row)) for row in part)
        made[1] += sum(sum(sample.num_trained for sample in _samples(row)) for row in part)
        made[2] += sum(width) * share.micro_batch
    mine = parts[share.data_rank]
    counts = {"tokens": made[0], "trained_tokens": made[1], "positions": made[2]}
    return Produced(_tensors(stream, mine, share.micro_batch), {**state, "made": list(made)}, {**report, **counts})


def _tensors(stream: Stream, rows: Sequence[PackedRow], count: int) -> Batch | PreferenceBatch:
    pad_id = stream.plan.tokenizing.pad_id
    width = _width(stream, rows)
    if stream.plan.objective == "dpo":
        pairs = [row for row in rows if isinstance(row, Pair)]
        return PreferenceBatch(
            make_batch([(pair.chosen,) for pair in pairs], count, width[0], pad_id),
            make_batch([(pair.rejected,) for pair in pairs], count, width[1], pad_id),
        )
    return make_batch([_samples(row) for row in rows], count, width[0], pad_id)


def make_batch(rows: Sequence[Sequence[Sample]], count: int, width: int, pad_id: int) -> Batch:
    """`count` rows of `width` tokens; missing ones are padding. In pinned memory where there is a GPU."""
    ids = np.full((count, width), pad_id, np.int64)
    labels = np.full((count, width), IGNORED, np.int64)
    positions = np.empty((count, width), np.int64)
    documents = np.full((count, width), -1, np.int32)
    for number in range(count):
        start = 0
        for document, sample in enumerate(rows[number] if number < len(rows) else ()):
            stop = start + len(sample)
            ids[number, start:stop] = sample.ids
            labels[number, start:stop] = np.where(sample.trained, sample.ids, IGNORED)
            labels[number, start] = IGNORED
            positions[number, start:stop] = np.arange(len(sample))
            documents[number, start:stop] = document
            start = stop
        positions[number, start:] = np.arange(width - start)
    tensors = [torch.from_numpy(array) for array in (ids, labels, positions, documents)]
    if torch.cuda.is_available():
        tensors = [tensor.pin_memory() for tensor in tensors]
    return Batch(tensors[0], tensors[1], tensors[2], tensors[3], num_trained=int(np.count_nonzero(labels != IGNORED)))


def _width(stream: Stream, rows: Sequence[PackedRow]) -> tuple[int, ...]:
    """Of the batch, or of chosen and rejected."""
    length = stream.plan.config.sequence_length
    if stream.plan.objective == "dpo":
        pairs = [row for row in rows if isinstance(row, Pair)]
        longest = [
            max((len(pair.chosen) for pair in pairs), default=0),
            max((len(pair.rejected) for pair in pairs), default=0),
        ]
    elif stream.plan.config.packing:
        return (length,)
    else:
        longest = [max((sum(len(sample) for sample in _samples(row)) for row in rows), default=0)]
    return tuple(min(length, max(1, -(-size // _MULTIPLE)) * _MULTIPLE) for size in longest)


def _samples(row: PackedRow) -> Sequence[Sample]:
    return (row.chosen, row.rejected) if isinstance(row, Pair) else row
