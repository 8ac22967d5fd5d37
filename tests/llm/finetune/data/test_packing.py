"""Packing: every token once, documents whole, rows full."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.finetune.data import packing
from michelangelo.llm.finetune.data.rows import Sample

LENGTH = 32


def samples_of(sizes: list[int]) -> list[Sample]:
    """Tokens are numbered through, so that each is told from all others."""
    ends = np.cumsum(sizes)
    return [
        Sample(np.arange(end - size, end, dtype=np.int32), np.arange(end - size, end) % 3 == 0)
        for size, end in zip(sizes, ends, strict=True)
    ]


def tokens(samples: list[Sample]) -> list[int]:
    return [int(token) for sample in samples for token in sample.ids]


@given(st.lists(st.integers(1, LENGTH), max_size=60), st.booleans())
def test_pack_keeps_every_document_whole_and_once(sizes: list[int], is_last: bool) -> None:
    samples = samples_of(sizes)
    packed = packing.pack(samples, LENGTH, is_last=is_last)
    out = [sample for row in packed.rows for sample in row] + packed.carried
    assert sorted(tuple(sample.ids.tolist()) for sample in out) == sorted(tuple(s.ids.tolist()) for s in samples)
    assert all(sum(len(sample) for sample in row) <= LENGTH for row in packed.rows)
    assert sum(len(sample) for sample in packed.carried) <= LENGTH
    assert not (is_last and packed.carried)


@given(st.lists(st.integers(1, 3 * LENGTH), max_size=30), st.booleans())
def test_concatenate_keeps_the_order_of_every_token(sizes: list[int], is_last: bool) -> None:
    samples = samples_of(sizes)
    packed = packing.concatenate(samples, LENGTH, is_last=is_last)
    assert tokens([sample for row in packed.rows for sample in row] + packed.carried) == tokens(samples)
    full = packed.rows[:-1] if is_last else packed.rows
    assert all(sum(len(sample) for sample in row) == LENGTH for row in full)
    # No part holds tokens of two documents.
    owner = np.repeat(np.arange(len(sizes)), sizes)
    assert all(len(set(owner[sample.ids].tolist())) == 1 for row in packed.rows for sample in row)
    assert all(np.array_equal(s.trained, s.ids % 3 == 0) for row in packed.rows for s in row)


@given(st.lists(st.lists(st.integers(1, LENGTH), max_size=20), max_size=5))
def test_windows_with_what_is_carried_keep_every_document(windows: list[list[int]]) -> None:
    samples = samples_of([size for window in windows for size in window])
    left, out = list(samples), list[Sample]()
    carried: list[Sample] = []
    for number, window in enumerate(windows):
        mine, left = left[: len(window)], left[len(window) :]
        packed = packing.pack([*carried, *mine], LENGTH, is_last=number == len(windows) - 1)
        carried = packed.carried
        out += [sample for row in packed.rows for sample in row]
    assert sorted(tokens(out)) == tokens(samples)
    assert not carried


def test_pack_fills_rows_of_typical_lengths() -> None:
    chance = random.Random(3)
    sizes = [min(2048, max(8, round(chance.lognormvariate(5.5, 0.9)))) for _ in range(4000)]
    rows = packing.pack(samples_of(sizes), 2048, is_last=True).rows
    assert sum(sizes) / (len(rows) * 2048) > 0.99
