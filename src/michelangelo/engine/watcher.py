"""A thread that reads a watch and hands over what comes: list, then watch from there, and again when the watch breaks.

After a break present objects are delivered once more, so who listens must not mind repetitions. It decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from michelangelo import errors
from michelangelo.client.client import Client, Object, Watch

__all__ = ["Watcher"]

_PAUSE_SECONDS = 0.5


class Watcher:
    """Delivers ("ADDED" | "MODIFIED" | "DELETED", object), present ones first and by revision, until `stop`."""

    def __init__(
        self,
        client: Client,
        kind: str,
        deliver: Callable[[str, Object], None],
        *,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self._client = client
        self._kind = kind
        self._deliver = deliver
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No delivery begins after this returns."""
        self._stopped.set()
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._read()
            except (errors.ExpiredError, errors.UnavailableError):
                self._stopped.wait(_PAUSE_SECONDS)
            except errors.StorageError:
                # The store was closed under it, which only happens at the end of the process.
                return

    def _read(self) -> None:
        listed = self._client.list(
            self._kind,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        for obj in sorted(listed.items, key=lambda one: int(one["metadata"]["resourceVersion"])):
            self._deliver("ADDED", obj)
        with self._lock:
            if self._stopped.is_set():
                return
            watch = self._watch = self._client.watch(
                self._kind,
                namespace=self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                resource_version=listed.resource_version,
            )
        try:
            while not self._stopped.is_set():
                event = watch.next()
                if event is None:
                    return
                if event.type != "BOOKMARK":
                    self._deliver(event.type, event.object)
        finally:
            watch.close()
