"""Orders: every row comes as often as it should, in the same order from any position on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.finetune.data.ordering import RowOrder, StreamOrder, StreamSource, TableOrder, TableSource
from michelangelo.llm.finetune.data.rows import Position, Row


class Numbers:
    """A shard and a table of rows that say where they are from."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.num_bytes = count
        self.num_read = 0

    def read(self, start: Position = (0, 0)) -> Iterator[tuple[Row, Position]]:
        for number in range(start[1], self.num_bytes):
            self.num_read += 1
            yield self.row(number), (number + 1, number + 1)

    def __len__(self) -> int:
        return self.num_bytes

    def rows(self, indices: Sequence[int]) -> list[Row]:
        return [self.row(number) for number in indices]

    def row(self, number: int) -> Row:
        return Row({"n": number}, "fields", self.name, number + 1)


SOURCES = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=3)


def orders(sizes: list[list[int]], weights: Sequence[float], seed: int, block: int) -> list[RowOrder]:
    shards = [[Numbers(f"{s}.{f}", size) for f, size in enumerate(files)] for s, files in enumerate(sizes)]
    tables = [TableSource(files, weight) for files, weight in zip(shards, weights, strict=True)]
    streams = [StreamSource(files, weight) for files, weight in zip(shards, weights, strict=True)]
    return [
        TableOrder(tables, seed=seed, shuffled=block > 0),
        StreamOrder(streams, seed=seed, block_rows=block),
    ]


def all_rows(order: RowOrder, step: int = 7) -> list[tuple[str, int]]:
    found = []
    while rows := order.read(step):
        found += [(row.file, row.line) for row in rows]
    return found


@given(SOURCES, st.integers(0, 3), st.sampled_from([0, 1, 5, 100]), st.integers(0, 3))
def test_order_has_every_row_once_in_every_pass(sizes: list[list[int]], seed: int, block: int, epoch: int) -> None:
    expected = sorted(
        (f"{s}.{f}", line + 1) for s, files in enumerate(sizes) for f, size in enumerate(files) for line in range(size)
    )
    for order in orders(sizes, [1.0] * len(sizes), seed, block):
        order.start(epoch)
        assert sorted(all_rows(order)) == expected


@given(SOURCES, st.sampled_from([0, 1, 5, 100]), st.integers(0, 40), st.data())
def test_order_goes_on_from_any_position(sizes: list[list[int]], block: int, taken: int, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.sampled_from([1.0, 1.5, 3.0]), min_size=len(sizes), max_size=len(sizes)))
    for order, fresh in zip(orders(sizes, weights, 1, block), orders(sizes, weights, 1, block), strict=True):
        order.start(2)
        while taken > 0 and (rows := order.read(taken)):
            taken -= len(rows)
        position = json.loads(json.dumps(order.position()))
        fresh.seek(2, position)
        assert all_rows(fresh, 3) == all_rows(order, 11)


def test_order_differs_from_pass_to_pass_and_is_the_same_for_the_same_seed() -> None:
    for number in range(2):
        first, second, other = (orders([[50], [30]], [1.0, 1.0], seed, 20)[number] for seed in (1, 1, 2))
        passes = []
        for epoch in range(2):
            first.start(epoch)
            second.start(epoch)
            passes.append(all_rows(first))
            assert passes[-1] == all_rows(second)
        other.start(0)
        assert len({tuple(passes[0]), tuple(passes[1]), tuple(all_rows(other))}) == 3


def test_order_without_a_shuffle_is_that_of_the_source() -> None:
    for order in orders([[30, 10]], [1.0], 5, 0):
        assert all_rows(order) == [(f"0.{f}", line + 1) for f, size in ((0, 30), (1, 10)) for line in range(size)]


@pytest.mark.parametrize("weights", [(1.0, 3.0), (0.25, 0.75)])
def test_weight_says_how_often_the_rows_of_a_source_come(weights: tuple[float, float]) -> None:
    for order in orders([[40], [10]], weights, 0, 16):
        counts = Counter(all_rows(order))
        assert {counts[f"0.{0}", line + 1] for line in range(40)} == {1}
        assert {counts[f"1.{0}", line + 1] for line in range(10)} == {3}


def test_weight_that_is_no_whole_multiple_repeats_some_rows_more() -> None:
    for order in orders([[400], [400]], [1.0, 1.5], 0, 64):
        found = all_rows(order)
        repeated = Counter(name for name, _ in found)["1.0"]
        assert 560 <= repeated <= 640
        assert set(Counter(row for row in found if row[0] == "1.0").values()) == {1, 2}


def test_sources_of_any_size_are_mixed_to_the_end() -> None:
    for order in orders([[1000], [100]], [1.0, 1.0], 0, 50):
        found = [name for name, _ in all_rows(order)]
        thirds = [Counter(found[start : start + 366])["1.0"] for start in (0, 366, 733)]
        assert all(15 <= count <= 52 for count in thirds), thirds


def test_stream_goes_on_by_reading_one_block_only() -> None:
    order = StreamOrder([StreamSource([Numbers("a", 10_000)], 1.0)], seed=0, block_rows=50)
    for _ in range(900):
        order.read(10)
    shard = Numbers("a", 10_000)
    fresh = StreamOrder([StreamSource([shard], 1.0)], seed=0, block_rows=50)
    fresh.seek(0, order.position())
    fresh.read(10)
    assert shard.num_read <= 51
