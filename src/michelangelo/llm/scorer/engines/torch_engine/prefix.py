"""Which block of the cache belongs to whom: free ones, those in use, full ones kept as a prompt may come again.

A full block is known by the tokens in it and by all before it (the serial number of the block before: exact, as no
digest is). Sequences with the same beginning hold the same blocks. A block nobody holds stays findable until its room
is needed; the one unused for longest goes first, the end of a prompt before its beginning. It knows no tensors.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

__all__ = ["ROOT", "BlockTree"]

ROOT: Final = 0
"""The serial number of the empty prefix."""
_Key: TypeAlias = tuple[int, tuple[int, ...]]


class BlockTree:
    """Blocks first_block … first_block + num_blocks - 1. `is_sharing` False: nothing is ever found."""

    def __init__(self, num_blocks: int, block_tokens: int, *, is_sharing: bool = True, first_block: int = 0) -> None:
        self.num_blocks: Final = num_blocks
        self.block_tokens: Final = block_tokens
        self.is_sharing: Final = is_sharing
        self._free = list(range(first_block + num_blocks - 1, first_block - 1, -1))
        self._holders: dict[int, int] = {}
        """Block → how many hold it; blocks that are free or idle are not in it."""
        self._idle: collections.OrderedDict[int, None] = collections.OrderedDict()
        """Findable blocks that nobody holds, longest unused first."""
        self._found: dict[_Key, tuple[int, int]] = {}
        """What is before it and in it → block and its serial."""
        self._key_of: dict[int, _Key] = {}
        self._next_serial = ROOT + 1

    @property
    def num_available(self) -> int:
        """Blocks that `take` can give."""
        return len(self._free) + len(self._idle)

    @property
    def num_held(self) -> int:
        return len(self._holders)

    def num_holders(self, block: int) -> int:
        return self._holders.get(block, 0)

    def take(self, count: int) -> list[int] | None:
        """Blocks for one holder, contents undefined; None, and nothing changed, if there are not so many."""
        if count > self.num_available:
            return None
        taken = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _ = self._idle.popitem(last=False)
                del self._found[self._key_of.pop(block)]
            self._holders[block] = 1
            taken.append(block)
        return taken

    def match(self, tokens: Sequence[int], num_blocks: int) -> tuple[list[int], int]:
        """The blocks known of the beginning of `tokens`, `num_blocks` at most, now held once more; and their serial."""
        blocks: list[int] = []
        serial = ROOT
        size = self.block_tokens
        for number in range(num_blocks if self.is_sharing else 0):
            found = self._found.get((serial, tuple(tokens[number * size : (number + 1) * size])))
            if found is None:
                break
            block, serial = found
            self._idle.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1
            blocks.append(block)
        return blocks, serial

    def add(self, serial: int, tokens: Sequence[int], block: int) -> int:
        """Makes a full block findable behind the prefix `serial`; the serial of the longer prefix.

        If another block has the same contents already, that one stays the findable one.
        """
        if not self.is_sharing:
            return ROOT
        key = (serial, tuple(tokens))
        if (found := self._found.get(key)) is not None:
            return found[1]
        made = self._next_serial
        self._next_serial += 1
        self._found[key] = (block, made)
        self._key_of[block] = key
        return made

    def release(self, blocks: Iterable[int]) -> None:
        """Gives back what `take` and `match` gave, in the sequence's order. Raises ValueError if it is not held."""
        for block in reversed(list(blocks)):
            left = self._holders.get(block, 0) - 1
            if left < 0:
                raise ValueError(f"block {block} is released and nobody holds it")
            if left:
                self._holders[block] = left
                continue
            del self._holders[block]
            if block in self._key_of:
                self._idle[block] = None
            else:
                self._free.append(block)

    def forget(self) -> None:
        """Idle blocks become free."""
        for block in self._idle:
            del self._found[self._key_of.pop(block)]
            self._free.append(block)
        self._idle.clear()
