"""Single flight: of the steps with one cache key, in this run and in all others of the project, one computes.

The others are parked: they hold no executor's slot, no thread, and no claim. What makes progress certain: a claim is
taken when an attempt is about to start, after all that the step depends on has ended, and given back when the step has
ended; whoever holds one waits for nothing but its own computation, so there is no circle of waiting. When a holder
fails, is killed or dies, those who waited try again, and the first computes; its failure is no failure of theirs.

A parked step is woken by the watch of the claims. The look every few seconds is for what a watch cannot tell: that the
holder has died. It runs nothing and looks up no output (engine/caching.py does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from michelangelo.client.client import Object
from michelangelo.engine.claims import Claims, ClaimSource, claim_name, run_of
from michelangelo.engine.steps import Step
from michelangelo.engine.surroundings import Guard

__all__ = ["LOOK_SECONDS", "Clockwork", "SingleFlight"]

LOOK_SECONDS: Final = 3.0


class Clockwork(Protocol):
    """What is needed of the engine's loop (`engine.loop.Loop`)."""

    def call(self, function: Callable[..., None], *args: object) -> None: ...

    def later(self, delay_seconds: float, function: Callable[[], None]) -> object: ...


@dataclass
class _Parked:
    """The steps that wait for one key, and the claim of another run that they wait for, if it is not this one."""

    steps: list[Step] = field(default_factory=list)
    claim: Object | None = None


class SingleFlight:
    """Used on the engine's thread."""

    def __init__(
        self, claims: Claims, source: ClaimSource, loop: Clockwork, guard: Guard, *, wake: Callable[[Step], None]
    ) -> None:
        """`wake` is called for a step that was parked, when it should try again."""
        self._claims = claims
        self._source = source
        self._loop = loop
        self._guard = guard
        self._wake = wake
        self._computing: dict[str, Step] = {}
        self._parked: dict[str, _Parked] = {}
        self._present: set[str] = set()
        """Names of the claims there are, once they are watched."""
        self._stop_source: Callable[[], None] | None = None
        self._is_looking = False
        self._is_stopped = False

    def restore(self) -> None:
        """An earlier driver of the run has died; before anything is started."""
        self._claims.clear_left()

    def computes(self, step: Step) -> bool:
        """Whether the step has entered and not left."""
        return step.cache is not None and self._computing.get(step.cache.digest) is step

    def enter(self, step: Step) -> bool:
        """Whether the step is the one that computes. If not it is parked, and woken when it should try again."""
        assert step.cache is not None
        key = step.cache.digest
        if key in self._computing:
            if self._computing[key] is not step:
                self._park(key, step, None)
            return self._computing[key] is step
        claim = self._claims.take(key)
        if claim is not None and self._begin_watch():
            # What happened to it before the watch began, nobody tells.
            claim = self._claims.take(key)
        if claim is not None:
            self._park(key, step, claim)
            return False
        self._computing[key] = step
        return True

    def leave(self, step: Step) -> None:
        """The step has ended, or computes no more: the next may."""
        assert step.cache is not None
        key = step.cache.digest
        if self._computing.get(key) is step:
            del self._computing[key]
            self._claims.give_back(key)
            self._try_again(key)

    def waits_for(self, step: Step) -> str:
        """The run that computes what a parked step waits for; empty: it is this one."""
        assert step.cache is not None
        parked = self._parked.get(step.cache.digest)
        return run_of(parked.claim) if parked is not None and parked.claim is not None else ""

    def stop(self, *, give_back: bool) -> None:
        """Nobody is woken any more. With `give_back`, others may compute what this run has begun."""
        self._is_stopped = True
        self._parked.clear()
        if give_back:
            for key in self._computing:
                self._claims.give_back(key)
        self._computing.clear()

    def close(self) -> None:
        """End the thread that reads the watch; from any thread."""
        if self._stop_source is not None:
            self._stop_source()

    def _park(self, key: str, step: Step, claim: Object | None) -> None:
        parked = self._parked.setdefault(key, _Parked())
        parked.steps.append(step)
        parked.claim = claim
        if claim is not None and not self._is_looking:
            self._is_looking = True
            self._loop.later(LOOK_SECONDS, lambda: self._guard(self._look))

    def _try_again(self, key: str) -> None:
        parked = self._parked.pop(key, None)
        for step in parked.steps if parked is not None else ():
            self._loop.call(self._guard, self._wake, step)

    def _begin_watch(self) -> bool:
        """Whether it begins now."""
        if self._stop_source is not None:
            return False
        self._stop_source = self._source(
            lambda name, is_there: self._loop.call(self._guard, self._told, name, is_there)
        )
        return True

    def _told(self, name: str, is_there: bool) -> None:
        if is_there:
            self._present.add(name)
            return
        self._present.discard(name)
        if not self._is_stopped:
            self._try_again(name.removeprefix(claim_name("")))

    def _look(self) -> None:
        """Wake those whose claim was left behind by a holder that is gone, or went away untold."""
        self._is_looking = False
        if self._is_stopped:
            return
        alive: dict[str, bool] = {}
        waited_for = [(key, parked.claim) for key, parked in self._parked.items() if parked.claim is not None]
        for key, claim in waited_for:
            run = run_of(claim)
            if run not in alive:
                alive[run] = self._claims.is_alive(claim)
            if not alive[run] or claim_name(key) not in self._present:
                self._try_again(key)
        if any(parked.claim is not None for parked in self._parked.values()):
            self._is_looking = True
            self._loop.later(LOOK_SECONDS, lambda: self._guard(self._look))
