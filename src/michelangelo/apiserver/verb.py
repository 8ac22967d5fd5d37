"""A verb as a generator: it yields the store's futures and is sent their results, so one text of each verb serves
callers that block (`run`, the in-process client) and callers that await (`http.awaiting.run`). It knows no verb, and
loads no asyncio, which a process without a server has no use for.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from typing import TypeAlias, TypeVar

from michelangelo import errors
from michelangelo.storage.store import Record

__all__ = ["Verb", "run"]

T = TypeVar("T")
Verb: TypeAlias = Generator[Future[Record], Record, T]


def run(verb: Verb[T]) -> T:
    """Drive a verb to its end, blocking while the store commits. Raises what the verb raises."""
    try:
        future = next(verb)
        while True:
            try:
                record = future.result()
            except errors.MichelangeloError as e:
                future = verb.throw(e)
            else:
                future = verb.send(record)
    except StopIteration as end:
        result: T = end.value
        return result
