"""Long text → parts of which the tokens add up to the tokens of the whole, so that memory is bounded and cores share.

A byte-pair encoder merges within what its pattern calls a word. All bundled patterns end a word between a line end and
a letter or digit (`\\s*[\\r\\n]+` takes the line ends, no other alternative goes over one to a letter), and between a
letter and a blank before a letter. So cutting there changes no count. It counts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["PART_CHARS", "boundary", "parts"]

PART_CHARS: Final = 1 << 20
_LONGEST: Final = 8 * PART_CHARS
"""With no safe place in so much text it is cut anyway."""
_SAFE: Final = re.compile(r"(?<=\n)(?=[A-Za-z0-9])|(?<=[a-z])(?= [A-Za-z])")


def boundary(text: str, start: int) -> int:
    """The first safe place after `start`, 0 if there is none."""
    found = _SAFE.search(text, max(1, start))
    return found.start() if found and found.start() < len(text) else 0


def parts(blocks: Iterable[str], size: int = PART_CHARS, longest: int = _LONGEST) -> Iterator[tuple[str, bool]]:
    """Parts of about `size` characters, and whether each ends at a safe place. Holds `longest` + one block at most."""
    held: list[str] = []
    length = 0
    for block in blocks:
        held.append(block)
        length += len(block)
        if length < size + 2:
            continue
        text = "".join(held)
        while len(text) >= size + 2:
            cut = boundary(text, size)
            if not cut and len(text) < longest:
                break
            yield text[: cut or longest], bool(cut)
            text = text[cut or longest :]
        held, length = [text], len(text)
    if rest := "".join(held):
        yield rest, True
