"""Leases: at most one holder at a time, and a successor soon after the holder is gone.

A lease is a `coordination.k8s.io/v1` Lease object, written with optimistic concurrency through the Client. Nobody
compares clocks: a contender takes over when the object has not changed for its duration by the contender's own clock,
and the holder counts itself out when it could not renew for that long by its own. A holder that was a process of this
machine and is provably dead has no term to wait for.

It is on the path of `python flow.py`: it loads neither models nor HTTP. What a lease protects is its user's business,
and so is stopping when it is lost; a write that must not happen twice is fenced by its own object (a TaskRun per
attempt)."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from michelangelo import errors
from michelangelo.meta import labels as label_keys
from michelangelo.meta import timestamps
from michelangelo.runtime import processes

if TYPE_CHECKING:
    from michelangelo.client.client import Client, Object

__all__ = ["DURATION_SECONDS", "Keeper", "Lease", "holder_of", "is_dead", "of_run", "run_lease_name"]

DURATION_SECONDS: Final = 15
_RENEWALS_PER_TERM: Final = 3
_RACES: Final = 5
"""How often a write is made again after somebody else touched the object without taking the lease."""


class Lease:
    """One contender for one lease. Not thread safe but for `is_held`: while a Keeper runs, it is the Keeper's.

    `identity` is the holder that is written; every Lease is a holder of its own. `clock` gives seconds that never go
    back."""

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        namespace: str,
        duration_seconds: int = DURATION_SECONDS,
        identity: str = "",
        metadata: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`metadata` (labels, ownerReferences) is given to a Lease object that this contender creates."""
        self._client = client
        self.name = name
        self.namespace = namespace
        self.duration_seconds = duration_seconds
        self.identity = identity or str(processes.of_this_process())
        self._metadata = dict(metadata or {})
        self._clock = clock
        self._held: Object | None = None
        self._held_until = 0.0
        self._observed: tuple[str, str] = ("", "")
        """uid and resourceVersion that were seen last …"""
        self._observed_at = 0.0
        """… and since when."""

    @property
    def is_held(self) -> bool:
        """Whether this contender is the holder, for certain: nobody else can have taken over yet."""
        return self._held is not None and self._clock() < self._held_until

    @property
    def transitions(self) -> int:
        """How often the lease has gone from one holder to another, as of the last write. Grows with each takeover."""
        return int(((self._held or {}).get("spec") or {}).get("leaseTransitions") or 0)

    def acquire(self) -> bool:
        """One attempt, at once; call it again for as long as it says no.

        Raises NotFoundError without the namespace, and any other ApiError when the server refuses.
        """
        started = self._clock()
        present = self._read()
        if present is None:
            try:
                return self._won(self._client.create(self._document()), started)
            except errors.AlreadyExistsError:
                return False
        if not self._is_free(present):
            return False
        try:
            return self._won(self._client.update(self._taken(present)), started)
        except (errors.ConflictError, errors.NotFoundError):
            return False

    def renew(self) -> None:
        """Begin a new term. Raises LeaseLostError; any other error leaves the term as it is, for a further attempt.

        A term that ran out (a suspended process) is no loss as long as nobody has taken over.
        """
        held = self._held
        if held is None:
            raise errors.LeaseLostError(f"{self} is not held by this process")
        for _ in range(_RACES):
            started = self._clock()
            renewed = copy.deepcopy(held)
            renewed["spec"]["renewTime"] = timestamps.now_micros()
            try:
                self._won(self._client.update(renewed), started)
                return
            except (errors.ConflictError, errors.NotFoundError):
                held = self._read()
            except (errors.ApiError, errors.StorageError) as e:
                if self._clock() < self._held_until:
                    raise
                raise self._lost(f"it could not be renewed in time: {e}") from e
            if held is None:
                raise self._lost("it was deleted")
            if holder_of(held) != self.identity:
                raise self._lost(f"{holder_of(held)} has taken it over")
        raise errors.ConflictError(f"{self} is changed by others all the time; it could not be renewed")

    def release(self) -> None:
        """Delete the Lease object if it is still this contender's. Raises ApiError when the server cannot be asked."""
        held, self._held = self._held, None
        for _ in range(_RACES):
            if held is None or holder_of(held) != self.identity:
                return
            metadata = held["metadata"]
            try:
                self._client.delete(
                    "Lease",
                    self.name,
                    namespace=self.namespace,
                    uid=metadata["uid"],
                    resource_version=metadata["resourceVersion"],
                )
                return
            except errors.NotFoundError:
                return
            except errors.ConflictError:
                held = self._read()

    def __str__(self) -> str:
        return f"lease {self.namespace}/{self.name}"

    def _read(self) -> Object | None:
        try:
            return self._client.get("Lease", self.name, namespace=self.namespace)
        except errors.NotFoundError:
            return None

    def _is_free(self, lease: Object) -> bool:
        holder = holder_of(lease)
        # One's own: the answer to an earlier write was lost on the way.
        if not holder or holder == self.identity or is_dead(lease):
            return True
        metadata = lease["metadata"]
        seen = (metadata["uid"], metadata["resourceVersion"])
        if seen != self._observed:
            self._observed, self._observed_at = seen, self._clock()
            return False
        term = float(lease["spec"].get("leaseDurationSeconds") or DURATION_SECONDS)
        return self._clock() - self._observed_at >= term

    def _won(self, stored: Object, started: float) -> bool:
        self._held = stored
        # Counted from before the write: whoever saw it saw it later, and waits longer.
        self._held_until = started + self.duration_seconds
        return True

    def _lost(self, why: str) -> errors.LeaseLostError:
        self._held = None
        return errors.LeaseLostError(f"{self} is lost: {why}")

    def _document(self) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**self._metadata, "name": self.name, "namespace": self.namespace},
            "spec": {**self._term(), "leaseTransitions": 0},
        }

    def _taken(self, present: Object) -> Object:
        taken = copy.deepcopy(present)
        spec = taken.setdefault("spec", {})
        changed_hands = holder_of(present) not in ("", self.identity)
        transitions = int(spec.get("leaseTransitions") or 0) + changed_hands
        taken["spec"] = {**spec, **self._term(), "leaseTransitions": transitions}
        return taken

    def _term(self) -> dict[str, Any]:
        now = timestamps.now_micros()
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.duration_seconds,
            "acquireTime": now,
            "renewTime": now,
        }


class Keeper:
    """Renews a held lease from a thread of its own, three times per term, and tells once when it is lost."""

    def __init__(self, lease: Lease, on_lost: Callable[[errors.LeaseLostError], None]) -> None:
        """`on_lost` is called from the keeper's thread; it must not block and must not call `stop`."""
        self._lease = lease
        self._on_lost = on_lost
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keeper of {lease}", daemon=True)

    def start(self) -> None:
        """The lease must be held already."""
        self._thread.start()

    def stop(self, *, release: bool = True) -> None:
        """Renew no more, and with `release` delete the Lease object. A server that is gone does not matter: the term
        ends."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        if release:
            try:
                self._lease.release()
            except (errors.ApiError, errors.StorageError):
                pass

    def _keep(self) -> None:
        pause = self._lease.duration_seconds / _RENEWALS_PER_TERM
        while not self._stopped.wait(pause):
            try:
                self._lease.renew()
            except errors.LeaseLostError as e:
                self._on_lost(e)
                return
            except (errors.ApiError, errors.StorageError):
                # The server may be restarting: again soon, for as long as the term lasts; then `renew` says lost.
                pause = min(1.0, self._lease.duration_seconds / 10)
            else:
                pause = self._lease.duration_seconds / _RENEWALS_PER_TERM


def holder_of(lease: Object) -> str:
    """Who holds it, as written; empty for nobody."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def is_dead(lease: Object) -> bool:
    """Whether the holder was a process of this machine and boot and is provably no more."""
    identity = processes.Identity.parse(holder_of(lease))
    return identity is not None and identity.is_provably_dead


def run_lease_name(run: str) -> str:
    """The name of the Lease that the driver of a PipelineRun holds, in the run's namespace."""
    return f"pipelinerun-{run}"


def of_run(
    client: Client,
    run: Object,
    *,
    duration_seconds: int = DURATION_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Lease:
    """The lease for driving `run` (a PipelineRun as the server returned it). It goes with the run."""
    metadata = run["metadata"]
    owner = {"apiVersion": run["apiVersion"], "kind": run["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return Lease(
        client,
        run_lease_name(metadata["name"]),
        namespace=metadata["namespace"],
        duration_seconds=duration_seconds,
        metadata={"labels": {label_keys.PIPELINE_RUN: metadata["name"]}, "ownerReferences": [owner]},
        clock=clock,
    )
