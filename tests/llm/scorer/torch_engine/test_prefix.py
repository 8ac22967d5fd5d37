"""No block is lost, and none is shared wrongly, whatever comes in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo.llm.scorer.engines.torch_engine import prefix, scheduler

SIZE = 2


def test_a_beginning_is_found_as_far_as_it_is_known() -> None:
    tree = prefix.BlockTree(4, SIZE)
    blocks = tree.take(2)
    assert blocks is not None
    serial = tree.add(prefix.ROOT, (1, 2), blocks[0])
    tree.add(serial, (3, 4), blocks[1])
    assert tree.match((1, 2, 3, 4, 5), 2)[0] == blocks
    assert tree.match((1, 2, 9, 9), 2)[0] == blocks[:1]
    assert tree.match((3, 4), 1)[0] == []
    assert tree.num_holders(blocks[0]) == 3


def test_the_longest_unused_block_goes_first_and_an_end_before_its_beginning() -> None:
    tree = prefix.BlockTree(3, SIZE)
    blocks = tree.take(3)
    assert blocks is not None
    serial = prefix.ROOT
    for number, block in enumerate(blocks):
        serial = tree.add(serial, (number, number), block)
    tree.release(blocks)
    assert tree.num_available == 3
    assert tree.take(1) == blocks[2:]
    assert tree.match((0, 0, 1, 1, 2, 2), 3)[0] == blocks[:2]


def test_more_blocks_than_there_are_changes_nothing() -> None:
    tree = prefix.BlockTree(2, SIZE)
    assert tree.take(3) is None
    assert tree.num_available == 2


def test_what_nobody_holds_cannot_be_released() -> None:
    tree = prefix.BlockTree(2, SIZE)
    with pytest.raises(ValueError, match="nobody holds it"):
        tree.release([1])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 16),
    st.integers(1, 4),
    st.lists(
        st.one_of(
            st.tuples(st.just("submit"), st.lists(st.integers(0, 1), min_size=1, max_size=9)),
            st.tuples(st.sampled_from(["cancel", "finish"]), st.integers(0, 99)),
            st.tuples(st.just("step"), st.just(0)),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_sequences_read_only_what_was_computed_for_their_own_tokens(
    num_blocks: int, sequences: int, actions: list[tuple[str, list[int] | int]], is_sharing: bool
) -> None:
    """A cache that holds, for each place, the tokens up to it: what attention would have read. Most 15 tokens each."""
    tree = prefix.BlockTree(num_blocks, SIZE, is_sharing=is_sharing)
    plan = scheduler.Scheduler(tree, scheduler.Limits(sequences + 2, sequences))
    cache: dict[tuple[int, int], tuple[int, ...]] = {}
    alive: list[scheduler.Sequence] = []

    def step() -> None:
        chunks = plan.next()
        assert bool(chunks) == bool(alive)
        assert sum(chunk.stop - chunk.start for chunk in chunks) <= plan.limits.batch_tokens
        assert len(plan.running) <= sequences
        lengths = [chunk.stop - chunk.start for chunk in chunks]
        assert lengths == sorted(lengths, key=lambda length: length > 1)
        for chunk in chunks:  # all is written before anything is read
            tokens = chunk.sequence.tokens
            for place in range(chunk.start, chunk.stop):
                cache[chunk.sequence.blocks[place // SIZE], place % SIZE] = tuple(tokens[: place + 1])
        for chunk in chunks:
            tokens = chunk.sequence.tokens
            for place in range(chunk.stop):
                assert cache[chunk.sequence.blocks[place // SIZE], place % SIZE] == tuple(tokens[: place + 1])
            if chunk.is_last and len(tokens) < 15:
                tokens.append(len(tokens) % 2)
            elif chunk.is_last:
                alive.remove(chunk.sequence)
                plan.remove([chunk.sequence])

    for name, value in actions:
        if name == "submit" and isinstance(value, list):
            alive.append(scheduler.Sequence("s", list(value)))
            plan.add(alive[-1])
        elif name == "step":
            step()
        elif alive and isinstance(value, int):
            plan.remove([alive.pop(value % len(alive))])
        held = [block for sequence in plan.running for block in sequence.blocks]
        assert tree.num_held + tree.num_available == num_blocks
        assert all(tree.num_holders(block) == held.count(block) for block in set(held))
        assert tree.num_held == len(set(held))
    for _ in range(2000):
        if not alive:
            break
        step()
    assert not alive
    assert tree.num_held == 0
    assert tree.num_available == num_blocks


def test_the_oldest_sequence_is_never_preempted() -> None:
    tree = prefix.BlockTree(6, SIZE)
    plan = scheduler.Scheduler(tree, scheduler.Limits(16, 4))
    made = [scheduler.Sequence(name, [1, 2, 3]) for name in "abc"]
    for sequence in made:
        plan.add(sequence)
    for _ in range(9):
        for chunk in plan.next():
            if chunk.is_last and len(chunk.sequence.tokens) < 12:
                chunk.sequence.tokens.append(7)
    assert made[0].num_preempted == 0
    assert len(made[0].tokens) == 12
    assert plan.num_preemptions > 0
