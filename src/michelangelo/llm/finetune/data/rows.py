"""What passes between the parts of the data path: a raw row and where it is from, a sample of tokens, a row of samples.

Values only: nothing is read, tokenised or packed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["PackedRow", "Pair", "Position", "Row", "Sample", "Unit"]

Position: TypeAlias = tuple[int, int]
"""Where the next row of a shard is: where to seek to (bytes in a plain file of lines, else rows), and its number."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was stored. `json` and `text` are bytes that nobody has looked at, `fields` is a mapping;
    `damaged` says in words why there is no row."""

    data: bytes | Mapping[str, Any]
    form: Literal["json", "text", "fields", "damaged"]
    file: str
    line: int
    """From 1: the line of a file of lines, the row of anything else."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One document of n tokens."""

    ids: npt.NDArray[np.int32]
    """[n] int32."""
    trained: npt.NDArray[np.bool_]
    """[n] bool: whether the token is to be predicted. The first one never is, whatever is said here."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_trained(self) -> int:
        return int(np.count_nonzero(self.trained[1:]))

    def part(self, start: int, stop: int) -> Sample:
        """Tokens start … stop - 1, as a document of their own."""
        return Sample(self.ids[start:stop], self.trained[start:stop])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, each with the prompt in front of it."""

    chosen: Sample
    rejected: Sample

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)

    @property
    def num_trained(self) -> int:
        return self.chosen.num_trained + self.rejected.num_trained


Unit: TypeAlias = Sample | Pair
"""What a row of the data set becomes."""


PackedRow: TypeAlias = tuple[Sample, ...] | Pair
"""One row of a batch: documents side by side, or a pair."""
