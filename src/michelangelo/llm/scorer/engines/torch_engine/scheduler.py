"""Which tokens of which sequences go into the next step: those that decode, then prompts in chunks, up to a budget.

Sequences are served in the order they came. When the cache is full, the youngest give their blocks back and start again
later from their tokens (recomputed; what others still hold of them, or nobody has overwritten, is found again). It
knows neither models nor tensors nor what a token means.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from michelangelo.llm.scorer.engines.torch_engine import prefix

__all__ = ["Chunk", "Limits", "Scheduler", "Sequence"]


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens, and how far they are in the cache.

    tokens: prompt and output; who samples appends to it. first_wanted: the first position whose output the caller
    needs (None: the last): what is before it may come from another sequence's blocks. num_cached: tokens that did,
    when it was first admitted. num_preempted: how often it lost its blocks.
    """

    id: str
    tokens: list[int]
    first_wanted: int | None = None
    num_computed: int = 0
    blocks: list[int] = field(default_factory=list)
    serial: int = prefix.ROOT
    num_shared_blocks: int = 0
    """Full blocks that were made findable, or found."""
    num_cached: int | None = None
    num_preempted: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens start … stop - 1 of a sequence are computed in this step."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        """Nothing of the sequence is left to compute after it."""
        return self.stop == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a step: tokens, and sequences; tokens >= sequences >= 1."""

    batch_tokens: int
    sequences: int


class Scheduler:
    """Any one sequence must fit into the cache alone: who adds it sees to that."""

    def __init__(self, tree: prefix.BlockTree, limits: Limits) -> None:
        self.tree: Final = tree
        self.limits: Final = limits
        self.waiting: collections.deque[Sequence] = collections.deque()
        self.running: list[Sequence] = []
        """In the order they came."""
        self.num_preemptions = 0

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequences: Iterable[Sequence]) -> None:
        """Finished or cancelled: their blocks go back. Those it does not know change nothing."""
        gone = set(sequences)
        for sequence in self.running:
            if sequence in gone:
                self._give_back(sequence)
        self.running = [sequence for sequence in self.running if sequence not in gone]
        if any(sequence in gone for sequence in self.waiting):
            self.waiting = collections.deque(sequence for sequence in self.waiting if sequence not in gone)

    def next(self) -> list[Chunk]:
        """The next step, sequences with a single token first. Empty: there is nothing to do.

        All of it counts as computed: it must run as a whole, each layer's keys and values written before any is read.
        """
        self._make_room()
        chunks, longer = [], []
        for sequence in self.running:
            if len(sequence.tokens) - sequence.num_computed == 1:
                chunks.append(self._chunk(sequence, 1))
            else:
                longer.append(sequence)
        budget = self.limits.batch_tokens - len(chunks)
        for sequence in longer:
            if budget > 0:
                chunks.append(self._chunk(sequence, budget))
                budget -= chunks[-1].stop - chunks[-1].start
        while budget > 0 and self.waiting and len(self.running) < self.limits.sequences:
            if not self._admit(self.waiting[0]):
                break
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            chunks.append(self._chunk(sequence, budget))
            budget -= chunks[-1].stop - chunks[-1].start
        return sorted(chunks, key=lambda chunk: chunk.stop - chunk.start > 1)

    def _make_room(self) -> None:
        """Every running sequence has blocks for its tokens: the youngest lose theirs until it is so."""
        size = self.tree.block_tokens
        number = 0
        while number < len(self.running):
            sequence = self.running[number]
            missing = -(-len(sequence.tokens) // size) - len(sequence.blocks)
            if missing > 0:
                while (taken := self.tree.take(missing)) is None:
                    self._preempt()
                    if number == len(self.running):
                        return
                sequence.blocks.extend(taken)
            number += 1

    def _preempt(self) -> None:
        sequence = self.running.pop()
        self._give_back(sequence)
        sequence.num_preempted += 1
        self.num_preemptions += 1
        self.waiting.appendleft(sequence)

    def _give_back(self, sequence: Sequence) -> None:
        self.tree.release(sequence.blocks)
        sequence.blocks = []
        sequence.num_computed = sequence.num_shared_blocks = 0
        sequence.serial = prefix.ROOT

    def _admit(self, sequence: Sequence) -> bool:
        """False: there is no room for it now. Others that grow keep a block each, while there are others."""
        size = self.tree.block_tokens
        wanted = len(sequence.tokens) - 1 if sequence.first_wanted is None else sequence.first_wanted
        blocks, serial = self.tree.match(sequence.tokens, wanted // size)
        missing = -(-len(sequence.tokens) // size) - len(blocks)
        spare = len(self.running) // 4
        taken = self.tree.take(missing) if missing + spare <= self.tree.num_available else None
        if taken is None:
            self.tree.release(blocks)
            return False
        sequence.blocks = blocks + taken
        sequence.serial = serial
        sequence.num_shared_blocks = len(blocks)
        sequence.num_computed = len(blocks) * size
        if sequence.num_cached is None:
            sequence.num_cached = sequence.num_computed
        return True

    def _chunk(self, sequence: Sequence, budget: int) -> Chunk:
        start = sequence.num_computed
        stop = min(len(sequence.tokens), start + budget)
        sequence.num_computed = stop
        size = self.tree.block_tokens
        for number in range(sequence.num_shared_blocks, stop // size):
            tokens = sequence.tokens[number * size : (number + 1) * size]
            sequence.serial = self.tree.add(sequence.serial, tokens, sequence.blocks[number])
            sequence.num_shared_blocks = number + 1
        return Chunk(sequence, start, stop)
