"""One shard in the hands of a replica: what earlier logs have of it, what is still to be asked, and its sealing.

It reads the shard's rows and checks that they are those that the shard was made of, and those that logs answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.finetune.data.rows import Position
from michelangelo.llm.scorer import parts, sharding, sources
from michelangelo.llm.scorer.manifest import JobFolder
from michelangelo.llm.scorer.parts import DoneRow, LogWriter
from michelangelo.llm.scorer.sharding import Shard
from michelangelo.llm.scorer.sketch import Sketch
from michelangelo.llm.scorer.sources import InputFile, InputRow

__all__ = ["OpenShard", "Order", "RowReader"]

_MODULUS: Final = 1 << 128


@dataclass(frozen=True, slots=True)
class Order:
    """What the driver says of a shard. Numbers of rows count from the shard's first one."""

    shard: Shard
    file: InputFile
    first_in_file: int
    """The number of its first row in its file."""
    logs: tuple[str, ...] = ()
    """Of earlier attempts, by name."""
    careful: frozenset[int] = frozenset()
    """Rows that were in flight when an engine was lost: each is asked alone."""
    poison: Mapping[int, str] | None = None
    """Rows that are given up, and why."""

    def to_json(self) -> dict[str, Any]:
        return {
            "shard": self.shard.to_json(),
            "file": {name: getattr(self.file, name) for name in InputFile.__dataclass_fields__},
            "first_in_file": self.first_in_file,
            "logs": list(self.logs),
            "careful": sorted(self.careful),
            "poison": {str(row): reason for row, reason in (self.poison or {}).items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Order:
        return cls(
            Shard.from_json(value["shard"]),
            InputFile(**value["file"]),
            value["first_in_file"],
            tuple(value["logs"]),
            frozenset(value["careful"]),
            {int(row): reason for row, reason in value["poison"].items()},
        )


class RowReader:
    """Rows of shards. A packed file has no way to start in the middle: it is read on from the end of the last shard."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], sources.Stream] = {}
        self._open: tuple[InputFile, Iterator[tuple[InputRow, Position]], Position] | None = None

    def read(self, order: Order) -> Iterator[InputRow]:
        """As many rows as there are, at most those of the shard."""
        shard = order.shard
        rows = self._positioned(order)
        for _ in range(shard.num_rows):
            found = next(rows, None)
            if found is None:
                return
            row, position = found
            self._open = (order.file, rows, position)
            yield row

    def _positioned(self, order: Order) -> Iterator[tuple[InputRow, Position]]:
        start = order.shard.start
        if self._open is not None and self._open[0] == order.file and self._open[2] <= start:
            _, rows, position = self._open
            while position < start:
                found = next(rows, None)
                if found is None:
                    break
                position = found[1]
            if position == start:
                return rows
        stream = self._streams.setdefault((order.file.url, order.file.split), sources.open_stream(order.file))
        return stream.read(start)


class OpenShard:
    """Not thread-safe."""

    def __init__(self, order: Order, folder: JobFolder, who: str, reader: RowReader) -> None:
        self.order = order
        self.number = order.shard.number
        self._folder = folder
        self._who = who
        self._began = time.time()
        self._earlier = [folder.rows / name for name in order.logs]
        state = parts.read_log(self._earlier)
        self._state = state
        self._done: dict[int, DoneRow] = state.done
        self.num_adopted = len(state.done)
        self._log: LogWriter | None = None
        self._rows = reader.read(order)
        self._digest = 0
        self.num_read = 0
        self.num_failed = sum(1 for row in self._done.values() if "e" in row.facts)

    @property
    def num_rows(self) -> int:
        return self.order.shard.num_rows

    @property
    def num_done(self) -> int:
        return len(self._done)

    def next_row(self) -> tuple[int, InputRow] | None:
        """The next one that has no answer yet; None: there is none. Raises ScoringError if the input has changed."""
        while self.num_read < self.num_rows:
            row = next(self._rows, None)
            number = self.num_read
            if row is None:
                raise self._changed(f"it has {number} rows instead of {self.num_rows}")
            self.num_read += 1
            self._digest += sharding.row_sum(row.digest, self.order.first_in_file + number)
            known = self._done.get(number)
            if known is not None and known.digest != row.digest.hex():
                raise self._changed(f"row {row.place} is not the one that was answered")
            if self.num_read == self.num_rows:
                said = self.order.shard.digest
                if said and int(said, 16) != self._digest % _MODULUS:
                    raise self._changed("its digest is another one")
            if known is None:
                return number, row
        return None

    def submitted(self, rows: Sequence[int]) -> None:
        self._writer().submitted(rows)

    def done(self, number: int, row: InputRow, output: bytes, facts: Mapping[str, Any]) -> None:
        self._done[number] = self._writer().done(number, row.digest.hex(), facts, output)
        self.num_failed += "e" in facts

    @property
    def is_complete(self) -> bool:
        return self.num_read == self.num_rows == len(self._done)

    def seal(self, session: int) -> None:
        """The part and the record are on the disk when this returns; the logs are gone."""
        name = f"{self.number:06d}-{self._who}.jsonl"
        rows = [self._done[number] for number in range(self.num_rows)]
        facts = parts.seal(self._folder.parts / name, rows)
        record = {
            "part": name,
            "bytes": facts.num_bytes,
            "digest": facts.digest,
            "by": self._who,
            "session": session,
            "began": self._began,
            "ended": time.time(),
            "rows": self.num_rows,
            "lost": self._state.num_lost,
            "damaged": self._state.num_damaged,
            **_totals(rows),
        }
        if not self._folder.commit(self.number, record):
            (self._folder.parts / name).unlink(missing_ok=True)
        self.close()
        for path in [*self._earlier, *([self._log.path] if self._log else [])]:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _writer(self) -> LogWriter:
        if self._log is None:
            self._log = LogWriter(self._folder.rows / f"{self.number:06d}-{self._who}.log")
        return self._log

    def _changed(self, what: str) -> errors.ScoringError:
        return errors.ScoringError(
            f"{Path(self.order.file.path)} was changed since the job began ({what}): put it back as it was, or start "
            "over with --fresh, which discards what was scored"
        )


def _totals(rows: Sequence[DoneRow]) -> dict[str, Any]:
    latency, first = Sketch(), Sketch()
    sums: dict[str, float] = {"p": 0, "o": 0, "c": 0, "u": 0.0, "a": 0}
    failed, answered = 0, 0
    reasons: dict[str, int] = {}
    for row in rows:
        for name in sums:
            sums[name] += row.facts.get(name, 0)
        answered += "a" in row.facts
        if "t" in row.facts:
            latency.add(row.facts["t"])
        if "f" in row.facts:
            first.add(row.facts["f"])
        if "e" in row.facts:
            failed += 1
            if len(reasons) < 8 or row.facts["e"] in reasons:
                reasons[row.facts["e"]] = reasons.get(row.facts["e"], 0) + 1
    return {
        "failed": failed,
        "reasons": reasons,
        "prompt_tokens": sums["p"],
        "output_tokens": sums["o"],
        "cached_tokens": sums["c"],
        "cost_usd": sums["u"],
        "correct": sums["a"],
        "answered": answered,
        "latency": latency.to_json(),
        "first_token": first.to_json(),
    }
