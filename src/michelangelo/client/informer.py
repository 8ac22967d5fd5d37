"""A cache of all objects of one kind, kept up to date by a list and a watch, with indexes and handlers for changes.

Objects in it are shared and never changed in place: a newer state replaces the object. So they may be read from any
thread without a copy, and must be copied (`copy.deepcopy`) before anything in them is changed. The cache may be
behind the server, and never goes back in time: what it shows was true once. It decides nothing about what changes
mean."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from michelangelo import errors
from michelangelo.client.client import Client, Object, Watch, WatchEvent

__all__ = ["BY_LABEL", "BY_OWNER", "Change", "Handler", "Indexer", "Informer", "by_label", "by_owner"]

Indexer: TypeAlias = Callable[[Object], Iterable[str]]
Handler: TypeAlias = Callable[["Change"], None]
_Key: TypeAlias = tuple[str, str]

BY_LABEL: Final = "label"
BY_OWNER: Final = "owner"
_PAGE: Final = 500
_FIRST_BACKOFF_SECONDS: Final = 0.1
_LIMIT_BACKOFF_SECONDS: Final = 10.0


def by_label(obj: Object) -> Iterator[str]:
    """Index values `key=value`, one per label."""
    for key, value in (obj["metadata"].get("labels") or {}).items():
        yield f"{key}={value}"


def by_owner(obj: Object) -> Iterator[str]:
    """Index values: the uid of each owner."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        yield owner["uid"]


@dataclass(frozen=True, slots=True)
class Change:
    """What a handler is told. `old` is the state that was replaced; None for what was not there."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Object
    old: Object | None = None


class Informer:
    """Start it once; read it and add handlers from any thread.

    Handlers are called one at a time, in the order of the changes, from the informer's thread (the objects that are
    there already: from the thread that adds the handler). They must be quick, and must not raise or write.
    """

    def __init__(
        self,
        client: Client,
        kind: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        indexers: Mapping[str, Indexer] | None = None,
        backoff_seconds: float = _FIRST_BACKOFF_SECONDS,
    ) -> None:
        """An empty `namespace` means all of them. There are indexes BY_LABEL and BY_OWNER, and those of `indexers`."""
        self.kind = kind
        self._client = client
        self._scope = {"namespace": namespace, "label_selector": label_selector}
        self._backoff_seconds = backoff_seconds
        self._indexers: dict[str, Indexer] = {BY_LABEL: by_label, BY_OWNER: by_owner, **(indexers or {})}
        self._telling = threading.RLock()
        """Held from a change to the end of its handlers, so that they come one at a time and in order."""
        self._lock = threading.Lock()
        """Held for the moment of a read or a write only: a handler may read other informers, and they this one."""
        self._synced = threading.Event()
        self._stopped = threading.Event()
        self._objects: dict[_Key, Object] = {}
        self._indexes: dict[str, dict[str, set[_Key]]] = {name: {} for name in self._indexers}
        self._handlers: list[Handler] = []
        self._watch: Watch | None = None
        self._resource_version = ""
        self.last_error: errors.MichelangeloError | None = None
        """Why the cache may be behind at the moment; None while it follows."""
        self._thread = threading.Thread(target=self._run, name=f"informer {kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop following; the cache stays readable."""
        self._stopped.set()
        with self._lock:
            watch = self._watch
        if watch is not None:
            watch.close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def synced(self) -> bool:
        """Whether everything that was there at the start is in the cache."""
        return self._synced.is_set()

    def wait_synced(self, timeout_seconds: float | None = None) -> bool:
        return self._synced.wait(timeout_seconds)

    def get(self, name: str, *, namespace: str = "") -> Object | None:
        """The object, to be read only."""
        with self._lock:
            return self._objects.get((namespace, name))

    def list(self, *, namespace: str = "") -> Sequence[Object]:
        """All objects (of a namespace), to be read only, in no order."""
        with self._lock:
            return [obj for (space, _), obj in self._objects.items() if not namespace or space == namespace]

    def by_index(self, index: str, value: str) -> Sequence[Object]:
        """The objects for which the indexer of that name yielded `value`, to be read only, in no order."""
        with self._lock:
            return [self._objects[key] for key in self._indexes[index].get(value, ())]

    def add_handler(self, handler: Handler) -> Callable[[], None]:
        """Tell `handler` of every object there is, as ADDED, and then of every change; returns how to stop."""
        with self._telling:
            for obj in self.list():
                handler(Change("ADDED", obj))
            self._handlers.append(handler)

        def remove() -> None:
            with self._telling:
                self._handlers.remove(handler)

        return remove

    # --- following ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                if not self._resource_version:
                    self._resync()
                with self._watching() as watch:
                    while (event := watch.next()) is not None:
                        self._apply(event)
                        failures, self.last_error = 0, None
            except errors.ExpiredError as e:
                self._resource_version = ""
                self.last_error = e
            except (errors.ApiError, errors.StorageError) as e:
                self.last_error = e
            if self.last_error is not None:
                failures += 1
                self._stopped.wait(self._delay_seconds(failures))

    def _resync(self) -> None:
        """List everything, and tell the difference to what is known."""
        found: dict[_Key, Object] = {}
        token = ""
        while True:
            page = self._client.list(self.kind, limit=_PAGE, continue_token=token, **self._scope)
            found.update((_key(obj), obj) for obj in page.items)
            token = page.continue_token
            if not token:
                break
        with self._telling:
            for key in self._objects.keys() - found.keys():
                self._remove(key, self._objects[key])
            for key, obj in found.items():
                self._put(key, obj)
        self._resource_version = page.resource_version
        self._synced.set()

    @contextmanager
    def _watching(self) -> Iterator[Watch]:
        watch = self._client.watch(self.kind, resource_version=self._resource_version, **self._scope)
        with self._lock:
            self._watch = watch
        try:
            if self._stopped.is_set():
                watch.close()
            self.last_error = None
            yield watch
        finally:
            watch.close()
            with self._lock:
                self._watch = None

    def _apply(self, event: WatchEvent) -> None:
        obj = event.object
        with self._telling:
            if event.type == "DELETED":
                self._remove(_key(obj), obj)
            elif event.type != "BOOKMARK":
                self._put(_key(obj), obj)
        self._resource_version = obj["metadata"]["resourceVersion"]

    def _put(self, key: _Key, obj: Object) -> None:
        old = self._objects.get(key)
        if old is not None and _version(old) == _version(obj):
            return
        if old is not None and old["metadata"].get("uid") != obj["metadata"].get("uid"):
            # Deleted and made again while nobody looked: for handlers these are two objects.
            self._remove(key, old)
            old = None
        with self._lock:
            self._index(key, old, obj)
            self._objects[key] = obj
        self._tell(Change("ADDED" if old is None else "MODIFIED", obj, old))

    def _remove(self, key: _Key, last: Object) -> None:
        with self._lock:
            old = self._objects.pop(key, None)
            if old is None:
                return
            self._index(key, old, None)
        self._tell(Change("DELETED", last, old))

    def _index(self, key: _Key, old: Object | None, new: Object | None) -> None:
        for name, indexer in self._indexers.items():
            index = self._indexes[name]
            before = set(indexer(old)) if old is not None else set()
            after = set(indexer(new)) if new is not None else set()
            for value in before - after:
                index[value].discard(key)
                if not index[value]:
                    del index[value]
            for value in after - before:
                index.setdefault(value, set()).add(key)

    def _tell(self, change: Change) -> None:
        for handler in tuple(self._handlers):
            handler(change)

    def _delay_seconds(self, failures: int) -> float:
        full = min(_LIMIT_BACKOFF_SECONDS, self._backoff_seconds * 2.0 ** min(failures - 1, 20))
        return full * random.uniform(0.8, 1.0)


def _key(obj: Mapping[str, Any]) -> _Key:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _version(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"].get("resourceVersion") or "")
