"""Counts of texts and of whole sources, exact or as an interval, with bounded memory and on all cores given.

`count` is for one text; `count_items` for many, some of them too long to be held. What is counted comes from `sources`.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from michelangelo.llm.tokens import chats, splitting, tokenizers
from michelangelo.llm.tokens.counts import Count
from michelangelo.llm.tokens.sources import Item, Row
from michelangelo.llm.tokens.tokenizers import Tokenizer

__all__ = ["Counted", "count", "count_items"]

_BATCH_CHARS = splitting.PART_CHARS
_UNSPLIT_CHARS = 32 * splitting.PART_CHARS


@dataclass(frozen=True, slots=True)
class Counted:
    """An item with its tokens. rows: how many records it was; row_tokens: tokens of each, for a data set."""

    name: str
    count: Count
    rows: int = 0
    row_tokens: tuple[int, ...] = ()


def count(text: str, model: str, *, tokenizer: str = "") -> Count:
    """Tokens of a text, special tokens read as plain text. Raises PricingError for an unknown model."""
    return _count(text, tokenizers.for_model(model, tokenizer=tokenizer))


def count_items(items: Iterable[Item], model: str, *, tokenizer: str = "", num_processes: int = 1) -> Iterator[Counted]:
    """Each item's tokens, in their order. Holds some parts of 1 Mi characters for each process.

    num_processes: more than one share long inputs; short ones are done before others are started. Raises PricingError.
    """
    chosen = tokenizers.for_model(model, tokenizer=tokenizer)
    empty = Count(0, 0, 0, chosen.is_exact, chosen.name)
    work = _work(items, chosen)
    totals: dict[str, list[Any]] = {}
    for name, texts, is_safe, is_last, per_row in _counted(work, (model, tokenizer), num_processes):
        entry = totals.setdefault(name, [empty, 0, []])
        for one in texts:
            entry[0] = entry[0] + (one if is_safe else Count(one.tokens, one.low, one.high, False, one.tokenizer))
        if per_row:
            entry[1] += len(texts)
            entry[2] += [one.tokens for one in texts]
        if is_last:
            total, rows, row_tokens = totals.pop(name)
            yield Counted(name, total, rows, tuple(row_tokens))


def _work(items: Iterable[Item], chosen: Tokenizer) -> Iterator[tuple[str, list[Row], bool, bool, bool]]:
    """(item, texts, cut at safe places, last of the item, a text is a row)."""
    size = splitting.PART_CHARS if chosen.is_splittable else _UNSPLIT_CHARS
    longest = 8 * size if chosen.is_splittable else size
    for item in items:
        if item.is_rows:
            held: list[Row] = []
            length = 0
            for text in item.texts():
                held.append(text)
                length += _length(text)
                if length >= _BATCH_CHARS:
                    yield item.name, held, True, False, True
                    held, length = [], 0
            yield item.name, held, True, True, True
            continue
        for text, is_safe in splitting.parts(map(str, item.texts()), size, longest):
            yield item.name, [text], is_safe and (chosen.is_splittable or len(text) < size), False, False
        yield item.name, [], True, True, False


def _counted(
    work: Iterator[tuple[str, list[Row], bool, bool, bool]], named: tuple[str, str], num_processes: int
) -> Iterator[tuple[str, list[Count], bool, bool, bool]]:
    head: list[tuple[str, list[Row], bool, bool, bool]] = []
    length = 0
    if num_processes > 1:
        for one in work:
            head.append(one)
            length += sum(map(_length, one[1]))
            if length > 4 * splitting.PART_CHARS:
                yield from _shared(head, work, named, num_processes)
                return
    for name, texts, is_safe, is_last, per_row in [*head, *work]:
        yield name, _count_all(texts, named), is_safe, is_last, per_row


def _shared(
    head: list[Any], work: Iterator[Any], named: tuple[str, str], num_processes: int
) -> Iterator[tuple[str, list[Count], bool, bool, bool]]:
    """By processes, a few parts ahead of what was taken."""
    context = multiprocessing.get_context("spawn")
    waiting: list[tuple[Any, concurrent.futures.Future[list[Count]]]] = []
    with concurrent.futures.ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        for one in _chained(head, work):
            waiting.append((one, pool.submit(_count_all, one[1], named)))
            if len(waiting) > 2 * num_processes:
                yield _taken(*waiting.pop(0))
        for pair in waiting:
            yield _taken(*pair)


def _chained(head: list[Any], work: Iterator[Any]) -> Iterator[Any]:
    while head:
        yield head.pop(0)
    yield from work


def _taken(one: Any, future: concurrent.futures.Future[list[Count]]) -> tuple[str, list[Count], bool, bool, bool]:
    return one[0], future.result(), one[2], one[3], one[4]


def _count_all(texts: Sequence[Row], named: tuple[str, str]) -> list[Count]:
    if not texts:
        return []
    chosen = tokenizers.for_model(named[0], tokenizer=named[1])
    return [
        _count(text, chosen)
        if isinstance(text, str)
        else chats.count(text["messages"], named[0], tools=text.get("tools") or (), tokenizer=named[1])
        for text in texts
    ]


def _length(row: Row) -> int:
    return len(row) if isinstance(row, str) else sum(len(str(message)) for message in row["messages"])


def _count(text: str, chosen: Tokenizer) -> Count:
    low, middle, high = chosen.count(text)
    return Count(middle, low, high, chosen.is_exact, chosen.name, len(text))
