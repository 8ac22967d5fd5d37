"""The verbs of the API over a Store, generic over kinds: what `get`, `list`, `create` … mean, without any transport.

Reads return at once. Writes are generators (`verb.Verb`): `verb.run` blocks on them, `http.awaiting.run` awaits them;
there is no second text for either. What may be stored is `admission`'s to say; words and details of refusals are
`refusals`'.

Writes are optimistic: read, change, write if nobody else has. Where the caller named no resourceVersion, a lost race is
read and changed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import (
    admission,
    audit,
    continue_token,
    deletion,
    documents,
    patching,
    refusals,
    sealing,
    snapshots,
)
from michelangelo.apiserver.options import DeleteOptions, ListOptions, WatchOptions, WriteOptions
from michelangelo.apiserver.selection import Selection
from michelangelo.apiserver.watching import WatchCursor
from michelangelo.client.client import ObjectList
from michelangelo.meta import selectors, status, timestamps
from michelangelo.storage.store import ABSENT, Write

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.apiserver.options import Subresource
    from michelangelo.apiserver.patching import Patch
    from michelangelo.apiserver.verb import Verb
    from michelangelo.client.client import Object
    from michelangelo.storage.store import Record, Store

__all__ = ["ApiServer"]

_RACES: Final = 20
"""How often a change without a resourceVersion is made again after another writer was faster."""
_NAMES: Final = 8
"""How many names are tried for a `generateName`."""


class ApiServer:
    """The verbs. May be called from any thread; a single verb runs in one."""

    def __init__(
        self,
        store: Store,
        *,
        clock: timestamps.Clock = timestamps.system_clock,
        audit_log: audit.AuditLog | None = None,
        sealer: sealing.Sealer | None = None,
    ) -> None:
        """`sealer`: with the key of the home; without one, secrets are lost with this process."""
        self._store = store
        self._sealer = sealer or sealing.Sealer(lambda: os.urandom(sealing.KEY_BYTES))
        self._clock = clock
        self._audit = audit_log

    def close(self) -> None:
        """Close the audit log; the store is its maker's."""
        if self._audit is not None:
            self._audit.close()

    # --- reading --------------------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Raises NotFoundError."""
        return self._open(self._record(kind, namespace, name))

    def list(self, kind: Kind, namespace: str = "", options: ListOptions | None = None) -> ObjectList:
        """A page, consistent with the first one of its chain. Raises BadRequestError (selectors, token),
        ExpiredError."""
        options = options or ListOptions()
        selection = Selection.parse(kind, namespace, options.label_selector, options.field_selector)
        start = continue_token.start(options, selection.prefix, self._store.revision())
        try:
            part = snapshots.read(self._store, selection, after=start.after, limit=options.limit, at=start.revision)
        except errors.ExpiredError as e:
            raise refusals.expired_continue() from e
        token = continue_token.encode(part.revision, part.last_key, selection.prefix) if part.last_key else ""
        return ObjectList(part.objects, str(part.revision), token, part.remaining)

    def watch(self, kind: Kind, namespace: str = "", options: WatchOptions | None = None) -> WatchCursor:
        """A cursor to `poll`; `subscribe` tells when. Raises BadRequestError."""
        options = options or WatchOptions()
        selection = Selection.parse(kind, namespace, options.label_selector, options.field_selector)
        revision = continue_token.revision(options.resource_version)
        initial = options.send_initial_events
        if initial is None:
            initial = revision == 0
        if not initial and revision == 0:
            revision = self._store.revision()
        return WatchCursor(self._store, selection, after=None if initial else revision)

    def subscribe(self, wake: Callable[[int], None], *, prefix: str = "") -> Callable[[], None]:
        """Call `wake(revision)` soon after each commit under a cursor's `prefix`; returns how to stop."""
        return self._store.subscribe(wake, prefix=prefix)

    def revision(self) -> int:
        return self._store.revision()

    # --- writing --------------------------------------------------------------------------------------------

    def create(self, kind: Kind, namespace: str, obj: Object, options: WriteOptions | None = None) -> Verb[Object]:
        """Store a new object. Raises AlreadyExistsError, InvalidError, BadRequestError, NotFoundError or ForbiddenError
        (the namespace is missing, or terminating), RequestTooLargeError."""
        options = options or WriteOptions()
        generated = not (obj.get("metadata") or {}).get("name") if isinstance(obj.get("metadata"), dict) else False
        for attempt in range(_NAMES):
            admitted = admission.create(kind, namespace, obj, self._clock(), options)
            try:
                stored = yield from self._insert(kind, admitted, options)
            except errors.AlreadyExistsError:
                if not generated or attempt == _NAMES - 1:
                    raise
                continue
            return stored
        raise AssertionError("unreachable: the last attempt returns or raises")

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        obj: Object,
        options: WriteOptions | None = None,
        subresource: Subresource = "",
    ) -> Verb[Object]:
        """Replace. Raises ConflictError where `metadata.resourceVersion` or `uid` is another one, NotFoundError,
        InvalidError …"""

        def change(_current: Object) -> Object:
            return obj

        if isinstance(obj, dict):
            admission.check_name(kind, name, obj)
        return self._change(kind, namespace, name, change, options or WriteOptions(), subresource)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Patch,
        options: WriteOptions | None = None,
        subresource: Subresource = "",
    ) -> Verb[Object]:
        """Change by a patch, see `patching`. Raises what `update` raises, and BadRequestError for a patch that is
        none."""

        def change(current: Object) -> Object:
            return patching.apply(kind, patch, current)

        return self._change(kind, namespace, name, change, options or WriteOptions(), subresource)

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        options: WriteOptions | None = None,
        how: DeleteOptions | None = None,
    ) -> Verb[Object]:
        """Delete and return a Status, or mark for deletion while finalizers remain and return the object.

        Raises NotFoundError, ConflictError (preconditions).
        """
        options, how = options or WriteOptions(), how or DeleteOptions()
        for _ in range(_RACES):
            record = self._record(kind, namespace, name)
            current = self._open(record)
            _guard(options, current)
            deletion.check(kind, current, how)
            marked = deletion.mark(kind, current, how, self._clock())
            try:
                if marked is None:
                    yield from self._remove(kind, current, record, options)
                    return status.success(
                        group=kind.group, plural=kind.plural, name=name, uid=current["metadata"]["uid"]
                    )
                if marked == current:
                    return current
                stored = yield from self._replace(kind, current, marked, record, options, "delete")
            except errors.ConflictError:
                # `check` refuses where the caller named a version that is gone.
                continue
            except errors.NotFoundError as e:
                raise refusals.not_found(kind, name) from e
            return stored
        raise refusals.modified(kind, name)

    def delete_collection(
        self,
        kind: Kind,
        namespace: str,
        selectors: ListOptions | None = None,
        options: WriteOptions | None = None,
        how: DeleteOptions | None = None,
    ) -> Verb[ObjectList]:
        """Delete what the selectors select, one by one; what is gone meanwhile is passed over. Returns what was
        there."""
        found = self.list(kind, namespace, selectors)
        for obj in found.items:
            metadata = obj["metadata"]
            try:
                yield from self.delete(kind, metadata.get("namespace", ""), metadata["name"], options, how)
            except errors.NotFoundError:
                continue
        return found

    # --- the steps of a write ---------------------------------------------------------------------------------

    def _open(self, record: Record) -> Object:
        return self._sealer.open(documents.decode_sealed(record))

    def _record(self, kind: Kind, namespace: str, name: str) -> Record:
        record = self._store.get(documents.key(kind, namespace, name))
        if record is None:
            raise refusals.not_found(kind, name)
        return record

    def _insert(self, kind: Kind, obj: Object, options: WriteOptions) -> Verb[Object]:
        _guard(options, obj)
        metadata = obj["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace", "")
        value = documents.encode(self._sealer.seal(obj))
        key = documents.key(kind, namespace, name)
        if kind.namespaced:
            yield from self._enter_namespace(kind, name, namespace, key, options)
        if options.dry_run:
            if self._store.get(key) is not None:
                raise refusals.already_exists(kind, name)
            return obj
        try:
            record = yield self._store.write(Write(key, value, ABSENT, selectors.index_terms(obj)))
        except errors.AlreadyExistsError as e:
            raise refusals.already_exists(kind, name) from e
        metadata["resourceVersion"] = str(record.revision)
        self._log("create", kind, obj, "", options)
        return obj

    def _enter_namespace(self, kind: Kind, name: str, namespace: str, key: str, options: WriteOptions) -> Verb[None]:
        """The namespace must be there and not on its way out. A Project brings its own; those of the system are always
        there."""
        space = registry.get("Namespace")
        record = self._store.get(documents.key(space, "", namespace))
        if record is not None:
            if documents.decode(record)["metadata"].get("deletionTimestamp"):
                raise refusals.terminating(kind, name, namespace)
            return
        if kind.kind == "Project":
            # Nothing is left behind by a create that is refused.
            if self._store.get(key) is not None:
                raise refusals.already_exists(kind, name)
        elif not admission.is_system_namespace(namespace):
            raise refusals.not_found(space, namespace)
        try:
            yield from self.create(space, "", {"metadata": {"name": namespace}}, options)
        except errors.AlreadyExistsError:
            return

    def _change(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[Object], Object],
        options: WriteOptions,
        subresource: Subresource,
    ) -> Verb[Object]:
        for _ in range(_RACES):
            record = self._record(kind, namespace, name)
            current = self._open(record)
            _guard(options, current)
            wanted = change(self._open(record))
            # Where the caller named a version, this refuses as soon as it is no longer the current one.
            admission.check_identity(kind, current, wanted)
            admitted = admission.update(kind, current, wanted, subresource, self._clock(), options)
            _guard(options, admitted)
            if admitted == current:
                return current
            try:
                if deletion.is_due(kind, admitted):
                    yield from self._remove(kind, admitted, record, options)
                    return admitted
                stored = yield from self._replace(kind, current, admitted, record, options, "update")
            except errors.ConflictError:
                continue
            except errors.NotFoundError as e:
                raise refusals.not_found(kind, name) from e
            return stored
        raise refusals.modified(kind, name)

    def _replace(
        self, kind: Kind, current: Object, obj: Object, record: Record, options: WriteOptions, verb: str
    ) -> Verb[Object]:
        value = documents.encode(self._sealer.seal(obj))
        if options.dry_run:
            return obj
        try:
            stored = yield self._store.write(Write(record.key, value, record.revision, selectors.index_terms(obj)))
        except errors.ConflictError as e:
            raise refusals.modified(kind, obj["metadata"]["name"]) from e
        obj["metadata"]["resourceVersion"] = str(stored.revision)
        self._log(verb, kind, obj, current["metadata"]["resourceVersion"], options)
        return obj

    def _remove(self, kind: Kind, obj: Object, record: Record, options: WriteOptions) -> Verb[None]:
        if options.dry_run:
            return
        before = str(record.revision)
        try:
            stored = yield self._store.write(Write(record.key, None, record.revision))
        except errors.ConflictError as e:
            raise refusals.modified(kind, obj["metadata"]["name"]) from e
        obj["metadata"]["resourceVersion"] = str(stored.revision)
        self._log("delete", kind, obj, before, options)

    def _log(self, verb: str, kind: Kind, obj: Object, before: str, options: WriteOptions) -> None:
        if self._audit is not None:
            self._audit.write(audit.entry(options.user, verb, kind, obj, before, self._clock()))


def _guard(options: WriteOptions, obj: Object) -> None:
    if options.guard is not None:
        options.guard(obj)
