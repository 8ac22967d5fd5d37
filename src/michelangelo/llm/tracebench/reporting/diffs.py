"""Two answers word by word: which parts are in one of them only. Bounded, however long they are."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_CHARACTERS", "Piece", "words"]

MAX_CHARACTERS: Final = 4000
_MAX_WORDS: Final = 800
_WORD: Final = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text; differs: it is in this answer only."""

    text: str
    differs: bool


def words(a: str, b: str) -> tuple[list[Piece], list[Piece]]:
    """Both answers in pieces. What is longer than MAX_CHARACTERS is cut, and ends in …; what has too many words for a
    comparison of words has what both begin and end with told apart from the rest."""
    a, b = _cut(a), _cut(b)
    left, right = _WORD.findall(a), _WORD.findall(b)
    if len(left) > _MAX_WORDS or len(right) > _MAX_WORDS:
        return _ends(left, right)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        for side, words_of, start, stop in ((0, left, i1, i2), (1, right, j1, j2)):
            if start < stop:
                pieces[side].append(Piece("".join(words_of[start:stop]), tag != "equal"))
    return pieces


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "…"


def _ends(left: list[str], right: list[str]) -> tuple[list[Piece], list[Piece]]:
    shortest = min(len(left), len(right))
    start = next((i for i in range(shortest) if left[i] != right[i]), shortest)
    end = next((i for i in range(shortest - start) if left[-1 - i] != right[-1 - i]), shortest - start)
    made = []
    for one in (left, right):
        parts = [(one[:start], False), (one[start : len(one) - end], True), (one[len(one) - end :], False)]
        made.append([Piece("".join(part), differs) for part, differs in parts if part])
    return made[0], made[1]
