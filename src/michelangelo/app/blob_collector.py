"""Collection of garbage: blobs that no object names, cached outputs past their time, logs of runs that are gone.

Why no blob is lost that somebody refers to, or is about to. A pass takes the store's time `t0`, then lists all objects,
in any order and while they change; a blob is deleted when no listed object names it and it was neither written nor
touched since `t0 - age`. Every writer puts or touches a blob at most CLAIM_SECONDS, much less than `age`, before its
digest becomes visible in an object (BlobStore.touch): the worker that puts a result, the driver that takes one from the
cache or from an earlier run. So take a blob that an object names from the time `v` on.

* If the object was there when its kind was listed, the blob was named, and stays.
* If not, then `v > t0`, and a touch came after `t0 - CLAIM_SECONDS`. Deleting and touching a blob are one step each
  (Collectable.discard). If the touch was first, the blob was young when it came to deleting, and stays. If the deletion
  was first, the touch said so, and the writer wrote the blob again, or did its work again.

That holds for several collectors at once, and for one that dies in the middle. A run also passes on what its objects
name already (a task's result as the argument of the next, or of a nested run) without touching it. Its objects stay for
as long as it goes on, so one of the two is listed, unless the first is deleted after the copy, while the listing is
between the two. Therefore, where there is something to delete, everything is listed a second time: what was copied
during the first listing stands there.

Any text of 64 hexadecimal digits in an object counts as a
reference, whatever the field: a kind that is made tomorrow is safe today. Ages are the store's own clock's.

Beyond that, work is saved: what was written since the start of the oldest run that is still under way stays, so that a
result which waits in a task for days to be recorded is not computed twice. A run is under way while its lease shows
signs of life, and for a week after the last one, unless its driver is known to be dead.

Other platforms' objects cannot be listed: where several have joined one store, nothing is collected.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.blobs.blob_store import Blob, BlobStore, Collectable
from michelangelo.client.client import Client, Object
from michelangelo.runtime import leases

__all__ = ["CLAIM_SECONDS", "DEFAULT_AGE_SECONDS", "MIN_AGE_SECONDS", "BlobCollector", "Collected", "Schedule"]

logger = logging.getLogger(__name__)

DEFAULT_AGE_SECONDS: Final = 24 * 3600.0
MIN_AGE_SECONDS: Final = 3600.0
CLAIM_SECONDS: Final = 2700.0
"""How long a put or a touch holds, at least: MIN_AGE_SECONDS less what S3 takes for young (s3.REFRESH_SECONDS)."""
_LISTED_PAGE: Final = 500
_NO_REFERENCES: Final = frozenset({"Event", "Lease", "Namespace", "Secret"})
_DIGEST: Final = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ENDED: Final = frozenset({"Succeeded", "Killed", "Failed", "Skipped"})
_SILENT_SECONDS: Final = 7 * 86400.0
_MARGIN_SECONDS: Final = 300.0
"""Between the clock of objects and that of the store."""
_BATCH: Final = 100


@dataclass(slots=True)
class Collected:
    """What a pass freed (or, as a dry run, would free), and what it left."""

    blobs: int = 0
    bytes: int = 0
    kept_blobs: int = 0
    kept_bytes: int = 0
    cached_outputs: int = 0
    logs: int = 0
    unfinished: int = 0
    """Pieces that writers which were killed left half-written."""

    def to_json(self) -> dict[str, int]:
        return dataclasses.asdict(self)


class BlobCollector:
    """Of one platform: `client` must see all of its objects."""

    def __init__(
        self,
        client: Client,
        blobs: BlobStore,
        *,
        platform: str = "",
        logs: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`platform`: the identity under which it joined the store, where it did. `logs`: the folder of the logs."""
        self._client = client
        self._blobs = blobs
        self._platform = platform
        self._logs = logs
        self._now = now

    def collect(self, *, age_seconds: float = DEFAULT_AGE_SECONDS, dry_run: bool = False) -> Collected:
        """One pass. `age_seconds`: what was written or touched later stays.

        Raises SettingsError for an age under MIN_AGE_SECONDS, StorageError where the store cannot be collected or
        fails, ApiError.
        """
        if not age_seconds >= MIN_AGE_SECONDS:
            raise errors.SettingsError(
                f"blobs younger than {MIN_AGE_SECONDS / 60:g} minutes stay: a run may be about to name them"
            )
        store = self._collectable()
        done = Collected()
        started = store.now()
        until = started - age_seconds
        under_way = self._oldest_under_way()
        if under_way is not None:
            until = min(until, under_way - _MARGIN_SECONDS)
        expired = self._expire_cached_outputs(dry_run=dry_run)
        done.cached_outputs = len(expired)
        named = self._named(without=expired)
        garbage = []
        for blob, age in store.ages():
            if age < until and not _is_named(blob, named):
                garbage.append(blob)
            else:
                done.kept_blobs += 1
                done.kept_bytes += blob.size
        if garbage:
            named = self._named(without=expired)
            for blob in [one for one in garbage if _is_named(one, named)]:
                garbage.remove(blob)
                done.kept_blobs += 1
                done.kept_bytes += blob.size
        self._discard(store, garbage, until, done, dry_run=dry_run)
        if not dry_run:
            done.unfinished = store.remove_stale(until)
        done.logs = self._remove_logs(until, dry_run=dry_run)
        return done

    def _collectable(self) -> Collectable:
        if not isinstance(self._blobs, Collectable):
            raise errors.StorageError(
                "blobs of this kind of store cannot be collected; only those of a folder and of s3:// can"
            )
        others = {name: text for name, text in self._blobs.platforms().items() if name != self._platform}
        if others:
            raise errors.StorageError(
                "the blob store is shared with other platforms, whose objects cannot be seen from here, so nothing is "
                f"collected: {', '.join(sorted(others.values()))}; give each platform a store (or prefix) of its own"
            )
        return self._blobs

    def _discard(
        self, store: Collectable, garbage: list[Blob], until: float, done: Collected, *, dry_run: bool
    ) -> None:
        for start in range(0, len(garbage), _BATCH):
            batch = {blob.digest: blob for blob in garbage[start : start + _BATCH]}
            gone = list(batch) if dry_run else store.discard(list(batch), until)
            done.blobs += len(gone)
            done.bytes += sum(batch[digest].size for digest in gone)
            for blob in batch.values():
                if blob.digest not in gone and self._blobs.has(blob.digest):
                    done.kept_blobs += 1
                    done.kept_bytes += blob.size

    def _named(self, *, without: set[str]) -> set[bytes]:
        """All digests in all objects, but for those of the cached outputs whose uids are in `without`."""
        found: set[bytes] = set()
        for kind in registry.KINDS:
            if kind in _NO_REFERENCES:
                continue
            for obj in self._listed(kind):
                if obj["metadata"].get("uid") not in without:
                    found.update(bytes.fromhex(name.decode()) for name in _DIGEST.findall(orjson.dumps(obj)))
        return found

    def _listed(self, kind: str) -> Iterator[Object]:
        """All objects of a kind as of one moment. Raises ExpiredError when reading takes longer than that is kept."""
        token = ""
        while True:
            page = self._client.list(kind, limit=_LISTED_PAGE, continue_token=token)
            yield from page.items
            token = page.continue_token
            if not token:
                return

    def _oldest_under_way(self) -> float | None:
        """When the oldest of the runs that are under way was made."""
        lives = {
            (lease["metadata"]["namespace"], lease["metadata"]["name"])
            for lease in self._listed("Lease")
            if not leases.is_dead(lease) and self._age(lease["spec"].get("renewTime")) < _SILENT_SECONDS
        }
        found = [
            _moment(run["metadata"]["creationTimestamp"])
            for run in self._listed("PipelineRun")
            if (run.get("status") or {}).get("state") not in _ENDED
            and (run["metadata"]["namespace"], leases.run_lease_name(run["metadata"]["name"])) in lives
        ]
        return min(found, default=None)

    def _expire_cached_outputs(self, *, dry_run: bool) -> set[str]:
        """Delete those whose time to live is over; their uids."""
        expired = set()
        for obj in self._listed("CachedOutput"):
            metadata, spec = obj["metadata"], obj["spec"]
            limits = [float(spec.get("ttlSeconds") or 0), 86400 * float(spec.get("ttlInDays") or 0)]
            limit = min((one for one in limits if one), default=0.0)
            if not limit or self._age(metadata["creationTimestamp"]) < limit + _MARGIN_SECONDS:
                continue
            if not dry_run:
                try:
                    self._client.delete(
                        "CachedOutput", metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"]
                    )
                except (errors.NotFoundError, errors.ConflictError):
                    continue  # somebody was quicker, and may have made a new one
            expired.add(str(metadata["uid"]))
        return expired

    def _remove_logs(self, until: float, *, dry_run: bool) -> int:
        """Remove the logs of runs that were deleted; of how many runs."""
        if self._logs is None or not self._logs.is_dir():
            return 0
        folders = [run for project in self._logs.iterdir() if project.is_dir() for run in project.iterdir()]
        old = [run for run in folders if run.is_dir() and run.stat().st_mtime < until]
        removed = 0
        for folder in old:
            try:
                self._client.get("PipelineRun", folder.name, namespace=folder.parent.name)
            except errors.NotFoundError:
                removed += 1
                if not dry_run:
                    shutil.rmtree(folder, ignore_errors=True)
        return removed

    def _age(self, timestamp: Any) -> float:
        return self._now().timestamp() - _moment(str(timestamp)) if timestamp else float("inf")


class Schedule:
    """`start` and `stop` a thread that calls `collect` regularly, while `is_leading` says so."""

    def __init__(
        self, collect: Callable[[], Collected], *, every_seconds: float, is_leading: Callable[[], bool]
    ) -> None:
        """0 seconds: never."""
        self._collect = collect
        self._every_seconds = every_seconds
        self._is_leading = is_leading
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="michelangelo-blob-collector", daemon=True)

    def start(self) -> None:
        if self._every_seconds:
            self._thread.start()

    def stop(self) -> None:
        """Waits for a pass that is going on."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        # Soon after the start too: a server that is restarted each day would never come to it.
        pause = min(self._every_seconds, _MARGIN_SECONDS)
        while not self._stopping.wait(pause):
            pause = self._every_seconds
            if not self._is_leading():
                continue
            try:
                done = self._collect()
            except errors.MichelangeloError as error:
                logger.warning("blobs were not collected: %s", error)
            else:
                logger.info("collected %d blobs of %d bytes, %d are kept", done.blobs, done.bytes, done.kept_blobs)


def _is_named(blob: Blob, named: set[bytes]) -> bool:
    return bytes.fromhex(blob.digest.removeprefix("sha256:")) in named


def _moment(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
