"""Run a verb on the event loop: await what it yields. The blocking twin is `apiserver.verb.run`."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from michelangelo import errors
from michelangelo.apiserver.verb import Verb

__all__ = ["run"]

T = TypeVar("T")


async def run(verb: Verb[T]) -> T:
    """Drive a verb to its end without holding a thread. Raises what the verb raises."""
    try:
        future = next(verb)
        while True:
            try:
                # Shielded: a client that goes away must not cancel a write that is already queued.
                record = await asyncio.shield(asyncio.wrap_future(future))
            except errors.MichelangeloError as e:
                future = verb.throw(e)
            else:
                future = verb.send(record)
    except StopIteration as end:
        result: T = end.value
        return result
