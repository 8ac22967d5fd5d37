"""Sources to packed rows as one global sequence, and a position in it that is small JSON.

The order of rows is read in windows: a window is tokenised and packed by itself, and what fills no row is carried into
the next one. A position is the state before a window (the order's, and the tokens carried over) and how many of its
rows were taken; so to continue means to do one window again. Nothing here depends on the number of processes.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import orjson

from michelangelo import errors
from michelangelo.llm.finetune.config import DataConfig
from michelangelo.llm.finetune.data import packing
from michelangelo.llm.finetune.data.ordering import RowOrder
from michelangelo.llm.finetune.data.report import DataReport
from michelangelo.llm.finetune.data.rows import PackedRow, Pair, Row, Sample
from michelangelo.llm.finetune.data.tokenizing import Tokenizing
from michelangelo.llm.training_setup import Objective

__all__ = ["Placed", "Side", "Stream", "StreamPlan", "is_held_out"]

_CHUNK_ROWS: Final = 128
_WINDOW_ROWS: Final = 64
_WINDOW_TOKENS: Final = 1_000_000
_LEAST_WINDOW_ROWS: Final = 8
_WINDOW_SAMPLES: Final = 4096

Side = Literal["all", "train", "validation"]
"""Which rows are taken: all, or those on one side of the split by digest."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What a stream is made of."""

    name: str
    """For messages: `data.train`."""
    config: DataConfig
    objective: Objective
    side: Side
    tokenizing: Tokenizing
    make_order: Callable[[], RowOrder]
    identity: Mapping[str, str] = field(default_factory=dict)
    """Digests of what a position belongs to."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One packed row, and where the stream is after it."""

    row: PackedRow
    state: Mapping[str, Any]
    report: Mapping[str, Any]
    """Counts of what was read so far (a window more than what was handed out)."""


@dataclass(frozen=True, slots=True)
class _Window:
    rows: Sequence[PackedRow]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    report: Mapping[str, Any]


class Stream:
    """The sequence of packed rows of a pass. Each call of `rows` is an independent reader."""

    def __init__(self, plan: StreamPlan) -> None:
        self.plan = plan

    def check(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError if a position is of other data or settings, or malformed."""
        if not isinstance(state.get("epoch"), int):
            raise errors.CheckpointError(
                "the position in the data that the checkpoint holds is malformed: it has no epoch"
            )
        changed = [name for name, digest in state.get("identity", {}).items() if self.plan.identity.get(name) != digest]
        if changed:
            raise errors.CheckpointError(
                f"the position in {self.plan.name} cannot be continued: {', '.join(sorted(changed))} changed since "
                "it was saved; continue with what it was saved with, or start anew with checkpoint.resume: never"
            )

    def rows(self, state: Mapping[str, Any]) -> Iterator[Placed]:
        """From a position on to the end of its pass; `{"epoch": n}` is the beginning of pass n. Raises DatasetError."""
        self.check(state)
        skipped = int(state.get("taken", 0))
        for window in self._windows(state):
            last = len(window.rows)
            for number in range(skipped, last):
                after = window.after if number + 1 == last else {**window.before, "taken": number + 1}
                yield Placed(window.rows[number], after, window.report)
            skipped = 0

    def num_rows(self, *, exact_up_to: int) -> int:
        """Packed rows of the first pass, of data that is not streamed. All of it is read if it has at most so
        many rows of its own; of more, so many, and the number is an estimate. Raises DatasetError as `rows` does."""
        total = self.plan.make_order().num_rows() or 0
        count = 0
        for window in self._windows({"epoch": 0}):
            count += len(window.rows)
            taken: int = window.after.get("order", 0)
            if total > exact_up_to and taken >= exact_up_to:
                return round(count * total / taken)
        return count

    def _windows(self, state: Mapping[str, Any]) -> Iterator[_Window]:
        plan, epoch = self.plan, int(state["epoch"])
        report = DataReport(epoch=epoch)
        report.set(state.get("counts", {}))
        if state.get("is_done"):
            return
        order = plan.make_order()
        if "order" in state:
            order.seek(epoch, state["order"])
        else:
            order.start(epoch)
        carried = _decode(state.get("carried"))
        number = int(state.get("window", 0))
        is_last = False
        while not is_last:
            before = self._state(epoch, number, order, carried, report)
            units, is_last = self._read(order, carried, report)
            if is_last:
                report.check(plan.config, is_end=True)
                if plan.side != "validation" or report.rows:
                    # Of few rows a small share may be none: then there is nothing to evaluate on, and that is all.
                    report.check_usable(plan.name)
            rows, carried = self._packed(units, epoch, number, is_last)
            number += 1
            after = self._state(epoch, number, order, carried, report)
            if is_last:
                after = {"epoch": epoch, "is_done": True, "counts": report.counts(), "identity": dict(plan.identity)}
            yield _Window(rows, before, after, report.counts())

    def _state(
        self, epoch: int, number: int, order: RowOrder, carried: Sequence[Sample], report: DataReport
    ) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "window": number,
            "order": order.position(),
            "carried": _encode(carried),
            "counts": report.counts(),
            "identity": dict(self.plan.identity),
        }

    def _read(self, order: RowOrder, carried: Sequence[Sample], report: DataReport) -> tuple[list[Any], bool]:
        """The units of a window, and whether they are the last ones."""
        config = self.plan.config
        wanted = max(
            _LEAST_WINDOW_ROWS * config.sequence_length, min(_WINDOW_TOKENS, _WINDOW_ROWS * config.sequence_length)
        )
        units: list[Any] = list(carried)
        tokens = sum(len(unit) for unit in units)
        while tokens < wanted and len(units) < _WINDOW_SAMPLES:
            rows = order.read(_CHUNK_ROWS)
            if not rows:
                return units, True
            mine = [row for row in rows if self._is_mine(row)]
            found = self.plan.tokenizing.units(mine, report)
            report.check(config)
            units += found
            tokens += sum(len(unit) for unit in found)
        return units, False

    def _is_mine(self, row: Row) -> bool:
        if self.plan.side == "all":
            return True
        return is_held_out(row, self.plan.config.validation_share) == (self.plan.side == "validation")

    def _packed(
        self, units: Sequence[Any], epoch: int, number: int, is_last: bool
    ) -> tuple[list[PackedRow], list[Sample]]:
        config = self.plan.config
        if not config.packing or self.plan.objective == "dpo":
            return [unit if isinstance(unit, Pair) else (unit,) for unit in units], []
        if self.plan.objective == "pretrain":
            packed = packing.concatenate(units, config.sequence_length, is_last=is_last)
            return list(packed.rows), packed.carried
        packed = packing.pack(units, config.sequence_length, is_last=is_last)
        if not config.shuffle_buffer:
            return list(packed.rows), packed.carried
        # Packing sorts by length; the model shall not see that.
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([abs(config.seed), epoch, number])))
        return [packed.rows[place] for place in random.permutation(len(packed.rows))], packed.carried


def is_held_out(row: Row, share: float) -> bool:
    """Whether a row is of the validation side: by its content alone, so that equal rows are on the same side, whatever
    the order, the file or the seed."""
    if isinstance(row.data, bytes):
        content = row.data.strip()
    else:
        content = orjson.dumps(row.data, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=repr)
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest) < share * 2.0**64


def _encode(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """Carried samples: at most about one row of tokens, a few kilobytes."""
    if not samples:
        return None
    ids = np.concatenate([sample.ids for sample in samples]).astype("<i4")
    trained = np.packbits(np.concatenate([sample.trained for sample in samples]))
    return {
        "sizes": [len(sample) for sample in samples],
        "ids": base64.b64encode(zlib.compress(ids.tobytes())).decode("ascii"),
        "trained": base64.b64encode(zlib.compress(trained.tobytes())).decode("ascii"),
    }


def _decode(data: Mapping[str, Any] | None) -> list[Sample]:
    if not data:
        return []
    sizes = [int(size) for size in data["sizes"]]
    ids = np.frombuffer(zlib.decompress(base64.b64decode(data["ids"])), dtype="<i4").astype(np.int32)
    bits = np.frombuffer(zlib.decompress(base64.b64decode(data["trained"])), dtype=np.uint8)
    trained = np.unpackbits(bits, count=sum(sizes)).astype(np.bool_)
    ends = np.cumsum(sizes).tolist()
    return [
        Sample(ids[stop - size : stop], trained[stop - size : stop]) for size, stop in zip(sizes, ends, strict=True)
    ]
