"""Samples → rows of one length: whole documents side by side, or one stream of text that is cut where rows end.

Arithmetic only, a pure function of what is given. Tokens are neither lost nor doubled, and a document keeps its order.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.finetune.data.rows import Sample

__all__ = ["Packed", "concatenate", "pack"]

_FULL: Final = 0.98
"""A row that is fuller is not opened again."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows, and samples that wait for the next ones."""

    rows: list[tuple[Sample, ...]]
    carried: list[Sample]
    """At most about one row of tokens."""


def pack(samples: Sequence[Sample], length: int, *, is_last: bool) -> Packed:
    """Best fit decreasing: the longest sample first, each into the fullest row that has room. None may be longer than
    `length`. Unless these are the last ones, the emptiest row or two are carried over to be filled later."""
    bins = _best_fit([len(sample) for sample in samples], length)
    carried: set[int] = set()
    if not is_last:
        left = length
        used = [sum(len(samples[place]) for place in places) for places in bins]
        for number in sorted(range(len(bins)), key=lambda number: used[number]):
            if used[number] >= _FULL * length or used[number] > left:
                break
            left -= used[number]
            carried.add(number)
    rows = [tuple(samples[place] for place in sorted(places)) for n, places in enumerate(bins) if n not in carried]
    kept = sorted(place for number in carried for place in bins[number])
    return Packed(rows, [samples[place] for place in kept])


def concatenate(samples: Iterable[Sample], length: int, *, is_last: bool) -> Packed:
    """One after the other; what crosses the end of a row goes on in the next one as a document of its own."""
    rows: list[tuple[Sample, ...]] = []
    row: list[Sample] = []
    room = length
    for sample in samples:
        start = 0
        while start < len(sample):
            part = sample.part(start, start + room)
            row.append(part)
            start += len(part)
            room -= len(part)
            if not room:
                rows.append(tuple(row))
                row, room = [], length
    if row and is_last:
        rows.append(tuple(row))
        row = []
    return Packed(rows, row)


def _best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Places of samples by row."""
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    """(room, row), sorted."""
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        size = sizes[place]
        if size > length:
            raise ValueError(f"a sample of {size} tokens does not fit into a row of {length}")
        found = bisect.bisect_left(rooms, (size, -1))
        if found == len(rooms):
            bins.append([place])
            room, number = length - size, len(bins) - 1
        else:
            room, number = rooms.pop(found)
            bins[number].append(place)
            room -= size
        if room:
            bisect.insort(rooms, (room, number))
    return bins
