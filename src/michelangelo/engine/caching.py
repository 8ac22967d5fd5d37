"""What a step that asks for the cache goes through: looked up, computed once, kept.

It ties the cache, the single flight of its keys and the explanation of its misses to the scheduler, which asks it at
three moments: when a step is ready, right before an attempt starts, and when the step has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from michelangelo import errors
from michelangelo.engine import cache_explanation
from michelangelo.engine.cache import Hit, Miss
from michelangelo.engine.cache_explanation import Neighbours
from michelangelo.engine.cache_key import CacheKey
from michelangelo.engine.journal import Entry, EntryState
from michelangelo.engine.recorder import Recorder
from michelangelo.engine.single_flight import Clockwork, SingleFlight
from michelangelo.engine.steps import Step
from michelangelo.engine.surroundings import Guard, Surroundings

__all__ = ["Caching"]


class Caching:
    """Used on the engine's thread."""

    def __init__(
        self,
        around: Surroundings,
        loop: Clockwork,
        recorder: Recorder,
        guard: Guard,
        *,
        enqueue: Callable[[Step], None],
    ) -> None:
        """`enqueue` is called for a step that waited for another one's output and did not get it."""
        self._run = around.run
        self._cache = around.cache
        self._recorder = recorder
        self._enqueue = enqueue
        self._neighbours: Neighbours | None = None
        if around.cache is not None:
            self._neighbours = Neighbours(around.cache.client, around.cache.namespace, around.run)
        self._flight: SingleFlight | None = None
        if around.claims is not None and around.watch_claims is not None:
            self._flight = SingleFlight(around.claims, around.watch_claims, loop, guard, wake=self._wake)

    def restore(self, entries: Sequence[Entry]) -> None:
        """Before anything is started; `entries` are what earlier drivers of the run recorded."""
        if entries and self._flight is not None:
            self._flight.restore()

    def find(self, step: Step) -> bool:
        """Whether the step has ended, with what the cache has for it."""
        if step.cache_request is None or self._cache is None:
            return False
        step.cache = step.cache_request(step.arguments)
        return self._found(step, step.cache)

    def may_start(self, step: Step) -> bool:
        """Whether an attempt is to start now. If not, the step has ended, or waits for who computes the same."""
        if step.cache_request is None or self._cache is None or self._flight is None:
            return True
        # After a resume of the run this is the first that is seen of it.
        step.cache = step.cache or step.cache_request(step.arguments)
        if self._flight.computes(step):
            return True
        if not self._flight.enter(step):
            run = self._flight.waits_for(step)
            whom = f"run {run}" if run else "another step of this run"
            self._recorder.waiting(step, f"waiting for {whom}, which computes the same")
            return False
        # Who computed it meanwhile has put it there before giving the claim back.
        if self._found(step, step.cache):
            self._flight.leave(step)
            return False
        return True

    def ended(self, step: Step, state: EntryState, output: Any) -> None:
        """The end of a step that was computed is recorded: keep a success, and let others have it."""
        if step.cache is None or self._cache is None:
            return
        if state is EntryState.SUCCEEDED:
            try:
                kept = self._cache.keep(step.cache, output, run=self._run, step=step.id)
            except (errors.RequestTooLargeError, errors.ForbiddenError, errors.InvalidError):
                # The step has succeeded; that its output cannot be kept is no failure.
                pass
            else:
                if self._neighbours is not None:
                    self._neighbours.add(kept)
        if self._flight is not None:
            self._flight.leave(step)

    def stop(self, *, give_back: bool) -> None:
        """Nothing waits any more. With `give_back`, others may compute what this run has begun."""
        if self._flight is not None:
            self._flight.stop(give_back=give_back)

    def close(self) -> None:
        """From any thread."""
        if self._flight is not None:
            self._flight.close()

    def _wake(self, step: Step) -> None:
        assert step.cache is not None
        if not self._found(step, step.cache):
            self._enqueue(step)

    def _found(self, step: Step, key: CacheKey) -> bool:
        assert self._cache is not None
        found = self._cache.find(key)
        if isinstance(found, Hit):
            wanted = {name: value for name, value in key.document().items() if not name.endswith("Parts")}
            details = {"cachedOutput": found.name, "source": dict(found.source), "cacheKey": wanted}
            self._recorder.whole(step, EntryState.CACHED, output=found.output, details=details)
            return True
        if not step.cache_miss:
            step.cache_miss = self._explained(key, found)
        return False

    def _explained(self, key: CacheKey, miss: Miss) -> dict[str, Any]:
        assert self._neighbours is not None
        try:
            return cache_explanation.explain_miss(key, miss, self._neighbours)
        except errors.ApiError as error:
            return {"cacheMiss": f"{miss.reason}; what is nearest cannot be looked up: {error}"}
