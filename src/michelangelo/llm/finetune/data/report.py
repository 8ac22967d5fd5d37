"""What was read, what was wrong with it, and how full the rows are: counted while the stream goes on.

Counts are of the pass that goes on, of all processes together. It judges bad rows by the limits of the configuration,
and does nothing else with them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.finetune.config import DataConfig
from michelangelo.llm.finetune.recording import Alert

__all__ = ["MAX_LISTED", "BadRow", "DataReport"]

MAX_LISTED: Final = 20
"""Bad rows that are told in full; the others are counted."""
_SHOWN: Final = 5
_ENOUGH_ROWS: Final = 200
"""Below, a share says little: one bad row among the first two is no half of the data."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that was left out."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(slots=True)
class DataReport:
    """Counts of one pass. `rows` are those of the source (of this side of the split), `samples` what became of them."""

    epoch: int = 0
    rows: int = 0
    bad_rows: int = 0
    first_bad: list[BadRow] = field(default_factory=list)
    samples: int = 0
    num_truncated: int = 0
    num_split: int = 0
    num_dropped: int = 0
    """Longer than a row, and left out by `long_samples: drop`."""
    num_untrained: int = 0
    """Left out because nothing of them is to be predicted: an answer that was cut off whole, a single token."""
    tokens: int = 0
    """In packed rows, without padding."""
    trained_tokens: int = 0
    positions: int = 0
    """In packed rows, with padding."""
    notes: list[str] = field(default_factory=list)
    """What is odd about the tokenizer."""
    alerted: dict[str, int] = field(default_factory=dict)

    @property
    def packing_efficiency(self) -> float:
        """Tokens per position, 0 … 1; 1 before there is a row."""
        return self.tokens / self.positions if self.positions else 1.0

    @property
    def trained_share(self) -> float:
        """Of the tokens, 0 … 1."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    def add_bad(self, file: str, line: int, reason: str) -> None:
        self.bad_rows += 1
        if len(self.first_bad) < MAX_LISTED:
            self.first_bad.append(BadRow(file, line, reason[:300]))

    def check(self, config: DataConfig, *, is_end: bool = False) -> None:
        """Raises DatasetError when more rows are bad than the configuration allows. The share is judged from 200 rows
        on; of fewer, at the end, more than half (or any, with max_bad_share: 0) are too many."""
        limit = ""
        if self.bad_rows > config.max_bad_rows:
            limit = f"data.max_bad_rows is {config.max_bad_rows}"
        elif self.rows >= _ENOUGH_ROWS or (is_end and self.bad_rows):
            share = config.max_bad_share
            if self.rows < _ENOUGH_ROWS and share > 0.0:
                share = max(share, 0.5)
            if self.bad_rows > share * self.rows:
                limit = f"data.max_bad_share is {config.max_bad_share:g}"
        if limit:
            raise errors.DatasetError(
                f"{self.bad_rows} of the first {self.rows} rows cannot be used ({limit}):\n{self.listing()}\n"
                "correct them, or raise that limit"
            )

    def check_usable(self, what: str) -> None:
        """At the end of a pass: raises DatasetError if nothing came of it."""
        if self.samples:
            return
        if self.bad_rows:
            raise errors.DatasetError(f"{what}: none of {self.rows} rows can be used:\n{self.listing()}")
        if self.rows:
            raise errors.DatasetError(
                f"{what}: of {self.rows} rows {self.num_dropped} are longer than data.sequence_length and "
                f"{self.num_untrained} have no token to learn, so nothing is left; raise data.sequence_length, "
                "or choose another data.long_samples"
            )
        raise errors.DatasetError(f"{what}: there are no rows; check data.train and data.validation_share")

    def listing(self) -> str:
        """The first bad rows, one a line."""
        lines = [f"  {bad}" for bad in self.first_bad[:_SHOWN]]
        if self.bad_rows > len(lines):
            lines.append(f"  … and {self.bad_rows - len(lines)} more")
        return "\n".join(lines)

    def take_alerts(self, step: int) -> list[Alert]:
        """What a person should see since the last call: bad rows (again whenever there are ten times as many), samples
        that were cut or left out, what is odd about the tokenizer."""
        found = []
        for kind, count, message in self._findings():
            told = self.alerted.get(kind, 0)
            if count and (not told or count >= 10 * told):
                self.alerted[kind] = count
                found.append(Alert(step, kind, message))
        return found

    def _findings(self) -> list[tuple[str, int, str]]:
        cut = self.num_truncated + self.num_split + self.num_dropped
        return [
            ("BadRows", self.bad_rows, f"{self.bad_rows} of {self.rows} rows cannot be used:\n{self.listing()}"),
            (
                "LongSamples",
                cut,
                f"longer than data.sequence_length: {self.num_truncated} samples truncated, {self.num_split} split, "
                f"{self.num_dropped} dropped, of {self.samples}",
            ),
            (
                "UntrainedSamples",
                self.num_untrained,
                f"{self.num_untrained} samples have no token to learn within data.sequence_length and are left out",
            ),
            ("Tokenizer", len(self.notes), "; ".join(self.notes)),
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **dataclasses.asdict(self),
            "packing_efficiency": round(self.packing_efficiency, 6),
            "trained_share": round(self.trained_share, 6),
        }

    def counts(self) -> dict[str, Any]:
        """What a saved position keeps."""
        counts = dataclasses.asdict(self)
        del counts["notes"], counts["alerted"]
        return counts

    def set(self, counts: Mapping[str, Any]) -> None:
        """Takes over counts; what was alerted and noted stays."""
        for name, value in counts.items():
            if name == "first_bad":
                self.first_bad = [bad if isinstance(bad, BadRow) else BadRow(**bad) for bad in value]
            else:
                setattr(self, name, copy.copy(value))
