"""Claims: which run computes the output of a cache key, so that others wait for it instead of computing the same.

A claim is a Lease object with a name made of the key. It is held for as long as its run's driver lives and has the
run: the run's own lease, which its driver renews anyway, says so. So a claim costs one write when it is taken and one
when it is given back, and nothing in between. It is a courtesy, not a lock: should two runs compute the same, then one
of them did so in vain. So whoever cannot ask computes. It waits for nothing (engine/single_flight.py does).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Final

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import Change, Informer
from michelangelo.meta import labels, timestamps
from michelangelo.runtime import leases

__all__ = ["ClaimSource", "Claims", "claim_name", "run_of", "watch_claims"]

_RACES: Final = 5
_SYNC_SECONDS: Final = 5.0
_OURS: Final = ("labels", "ownerReferences")

ClaimSource = Callable[[Callable[[str, bool], None]], Callable[[], None]]
"""Begins to tell of all claims of the project, by name: True for one that is there, those that are there already
first; False for one that is gone. Returns how to stop."""


def claim_name(key: str) -> str:
    return f"cache-{key}"


def run_of(claim: Object) -> str:
    """The run that computes."""
    return str((claim["metadata"].get("labels") or {}).get(labels.PIPELINE_RUN) or "")


class Claims:
    """Those of one run's driver, `holder`, which holds the run's lease under this identity."""

    def __init__(
        self, client: Client, run: Object, *, holder: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        metadata = run["metadata"]
        self._client = client
        self._run = str(metadata["name"])
        self._namespace = str(metadata["namespace"])
        self._owner = {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "name": self._run,
            "uid": metadata["uid"],
        }
        self._holder = holder
        self._clock = clock
        self._observed: dict[str, tuple[str, float]] = {}
        """Of other runs' leases: the version that was seen last, and since when."""
        self._taken: dict[str, str] = {}
        """The uids of the claims that are held."""

    def take(self, key: str) -> Object | None:
        """None: this run computes. Else the claim of the run that does."""
        try:
            return self._take(key)
        except errors.ApiError:
            return None

    def give_back(self, key: str) -> None:
        """What was taken; a server that is gone does not matter: the claim ends with the run's lease."""
        uid = self._taken.pop(key, "")
        if not uid:
            return
        try:
            self._client.delete("Lease", claim_name(key), namespace=self._namespace, uid=uid)
        except errors.ApiError:
            return

    def clear_left(self) -> None:
        """Delete what earlier drivers of this run held when they died: this run computes it again, or has done so."""
        try:
            listed = self._client.list("Lease", namespace=self._namespace, label_selector=labels.CACHE_CLAIM)
            for claim in listed.items:
                if run_of(claim) == self._run and leases.holder_of(claim) != self._holder:
                    metadata = claim["metadata"]
                    self._client.delete("Lease", metadata["name"], namespace=self._namespace, uid=metadata["uid"])
        except errors.ApiError:
            return

    def is_alive(self, claim: Object) -> bool:
        """Whether the claim's holder still drives its run, as far as can be known. In doubt it does."""
        run, holder = run_of(claim), leases.holder_of(claim)
        if run == self._run:
            return holder == self._holder
        if leases.is_dead(claim):
            return False
        try:
            lease = self._client.get("Lease", leases.run_lease_name(run), namespace=self._namespace)
        except errors.NotFoundError:
            return False
        except errors.ApiError:
            return True
        return leases.holder_of(lease) == holder and not self._is_over(run, lease)

    def _take(self, key: str) -> Object | None:
        wanted = self._document(key)
        for _ in range(_RACES):
            try:
                self._took(key, self._client.create(wanted))
                return None
            except errors.AlreadyExistsError:
                pass
            try:
                present = self._client.get("Lease", claim_name(key), namespace=self._namespace)
                if leases.holder_of(present) == self._holder:
                    self._took(key, present)
                    return None
                if self.is_alive(present):
                    return present
                taken = copy.deepcopy(present)
                taken["spec"] = {**taken["spec"], **wanted["spec"]}
                taken["metadata"] = {**taken["metadata"], **{one: wanted["metadata"][one] for one in _OURS}}
                self._took(key, self._client.update(taken))
                return None
            except (errors.NotFoundError, errors.ConflictError):
                continue
        # It changes hands all the time: whoever has it will have computed soon.
        return None

    def _took(self, key: str, claim: Object) -> None:
        self._taken[key] = str(claim["metadata"]["uid"])

    def _is_over(self, run: str, lease: Object) -> bool:
        """Whether a run's lease has not changed for its duration, by this process's clock."""
        version = str(lease["metadata"]["resourceVersion"])
        seen, since = self._observed.get(run, ("", 0.0))
        if seen != version:
            self._observed[run] = (version, self._clock())
            return False
        return self._clock() - since >= float(lease["spec"].get("leaseDurationSeconds") or leases.DURATION_SECONDS)

    def _document(self, key: str) -> Object:
        now = timestamps.now_micros()
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": claim_name(key),
                "namespace": self._namespace,
                "labels": {labels.CACHE_CLAIM: key, labels.PIPELINE_RUN: self._run},
                "ownerReferences": [self._owner],
            },
            "spec": {"holderIdentity": self._holder, "acquireTime": now, "renewTime": now},
        }


def watch_claims(client: Client, namespace: str) -> ClaimSource:
    """All claims of a project as a `ClaimSource`."""

    def begin(deliver: Callable[[str, bool], None]) -> Callable[[], None]:
        informer = Informer(client, "Lease", namespace=namespace, label_selector=labels.CACHE_CLAIM)

        def tell(change: Change) -> None:
            deliver(change.object["metadata"]["name"], change.type != "DELETED")

        informer.add_handler(tell)
        informer.start()
        informer.wait_synced(_SYNC_SECONDS)
        return informer.stop

    return begin
