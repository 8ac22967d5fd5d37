"""The manager: one set of informers for all controllers of a process, started and stopped together, on one replica at
a time.

Informers run on every replica, so that a successor starts warm; controllers run where the leader's lease is held. It
knows no controller by name."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from michelangelo import errors
from michelangelo.client.client import Client
from michelangelo.client.informer import Informer
from michelangelo.runtime import leases
from michelangelo.runtime.controller import Controller

__all__ = ["LEADER_NAMESPACE", "Manager"]

_log = logging.getLogger(__name__)

LEADER_NAMESPACE: Final = "ma-system"
_RETRY_SECONDS: Final = 2.0
"""How often a replica that is not the leader asks again."""


class Manager:
    """`leader_lease=""` runs the controllers without an election. Not to be started a second time."""

    def __init__(
        self,
        client: Client,
        *,
        leader_lease: str = "",
        lease_duration_seconds: int = leases.DURATION_SECONDS,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self.client = client
        self._leader_lease = leader_lease
        self._lease_duration_seconds = lease_duration_seconds
        self._retry_seconds = retry_seconds
        self._informers: dict[str, Informer] = {}
        self._controllers: list[Controller] = []
        self._stopped = threading.Event()
        self._leading = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="manager", daemon=True)

    def informer(self, kind: str) -> Informer:
        """The one informer of that kind, over all namespaces."""
        if kind not in self._informers:
            self._informers[kind] = Informer(self.client, kind)
        return self._informers[kind]

    def add(self, controller: Controller) -> None:
        """Before `start`."""
        self._controllers.append(controller)

    @property
    def is_leading(self) -> bool:
        """Whether the controllers of this process work."""
        return self._leading.is_set()

    def wait_leading(self, timeout_seconds: float | None = None) -> bool:
        return self._leading.wait(timeout_seconds)

    def start(self) -> None:
        """Returns at once; the controllers start when the informers are synced and this replica leads."""
        for informer in self._informers.values():
            informer.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop the controllers, each after the object it has at hand, then the informers; give the lease back."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        for informer in self._informers.values():
            informer.stop()

    def _run(self) -> None:
        for informer in self._informers.values():
            while not informer.wait_synced(0.2):
                if self._stopped.is_set():
                    return
        while not self._stopped.is_set():
            if self._leader_lease:
                self._lead_with_lease()
            else:
                self._lead(self._stopped.wait)

    def _lead(self, wait: Callable[[], object]) -> None:
        for controller in self._controllers:
            controller.start()
        self._leading.set()
        try:
            wait()
        finally:
            self._leading.clear()
            for controller in self._controllers:
                controller.stop()

    def _lead_with_lease(self) -> None:
        lease = leases.Lease(
            self.client,
            self._leader_lease,
            namespace=LEADER_NAMESPACE,
            duration_seconds=self._lease_duration_seconds,
        )
        if not self._acquire(lease):
            return
        lost = threading.Event()

        def on_lost(error: errors.LeaseLostError) -> None:
            _log.warning("controllers stop here: %s", error)
            lost.set()
            self._wake.set()

        self._wake.clear()
        keeper = leases.Keeper(lease, on_lost)
        keeper.start()
        try:
            if not self._stopped.is_set():
                self._lead(self._wake.wait)
        finally:
            keeper.stop(release=not lost.is_set())

    def _acquire(self, lease: leases.Lease) -> bool:
        """Ask until the lease is held; False when the manager was stopped first."""
        while not self._stopped.is_set():
            try:
                if self._try(lease):
                    return True
            except (errors.ApiError, errors.StorageError) as e:
                _log.warning("%s cannot be asked for: %s", lease, e)
            self._stopped.wait(self._retry_seconds)
        return False

    def _try(self, lease: leases.Lease) -> bool:
        try:
            return lease.acquire()
        except errors.NotFoundError:
            self.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEADER_NAMESPACE}})
            return lease.acquire()
