"""The embedded platform: store, verbs and client of one home in one process, without a server.

Any number of processes may have one home open at the same time; the store's file is what they share. Opened for one run
that keeps nothing, all of it is in memory and in a temporary folder. Nothing runs here: no controller, no server.
"""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, cast

from michelangelo import errors
from michelangelo.apiserver import keyfiles
from michelangelo.apiserver.audit import AuditFile
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.sealing import Sealer
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.app import storage_access
from michelangelo.app.settings import Settings
from michelangelo.blobs import opening
from michelangelo.blobs.blob_store import BlobStore, Collectable
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.client.client import Client
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import Store

if TYPE_CHECKING:
    from michelangelo.app.blob_collector import BlobCollector

__all__ = ["Platform", "ensure_project"]


class Platform:
    """Use `open` or `ephemeral`, and `close` it (or use it as a context)."""

    kept_revisions = 20_000
    """How much of the log stays where no server compacts it by time: some 30 MB."""

    def __init__(
        self,
        *,
        store: Store,
        api: ApiServer,
        blobs: BlobStore,
        blobs_url: str,
        logs: Path,
        user: str,
        identity: str = "",
    ) -> None:
        self.store = store
        self.api = api
        self.client: Client = InProcessClient(self.api, user=user)
        self.blobs = blobs
        self.blobs_url = blobs_url
        """Where other processes find the blobs."""
        self.logs = logs
        """`<project>/<run>/<TaskRun>.log` lie in this folder."""
        self.identity = identity
        """Under which it joined a blob store that others may use too; empty where it has one for itself."""

    @classmethod
    def open(
        cls, settings: Settings, *, durability: Literal["process", "power"] = "process", user: str = "local"
    ) -> Self:
        """The platform of the home, which is made where there is none. `durability` is the default where the settings
        have none. Raises SettingsError, StorageError."""
        settings.prepare_home()
        survives_power_loss = (settings.durability or durability) == "power"
        blobs_url = settings.blobs_url(durability=durability)
        store = SqliteStore(settings.database, synchronous="FULL" if survives_power_loss else "NORMAL")
        sealer = Sealer(lambda: bytes.fromhex(keyfiles.ensure_key(settings.secrets_key).decode()))
        try:
            storage_access.hand_on(InProcessClient(ApiServer(store, sealer=sealer)), settings)
            blobs = opening.open_blob_store(blobs_url)
            identity = keyfiles.ensure_key(settings.platform_id).decode()[:32] if settings.storage_url else ""
            if identity and isinstance(blobs, Collectable):
                blobs.join(identity, f"{socket.gethostname()}:{settings.home}")
            return cls(
                store=store,
                api=ApiServer(store, audit_log=AuditFile(settings.audit), sealer=sealer),
                blobs=blobs,
                identity=identity,
                blobs_url=blobs_url,
                logs=settings.logs,
                user=user,
            )
        except errors.MichelangeloError:
            store.close()
            raise

    @classmethod
    def ephemeral(cls, scratch: Path, *, user: str = "local") -> Self:
        """A platform in memory; what tasks leave lies in the folder `scratch`, which is the caller's to remove."""
        store = MemoryStore()
        return cls(
            store=store,
            api=ApiServer(store),
            blobs=LocalBlobStore(scratch / "blobs"),
            blobs_url=(scratch / "blobs").as_uri(),
            logs=scratch / "logs",
            user=user,
        )

    @property
    def collector(self) -> BlobCollector:
        """Of what is in `blobs` and `logs` and belongs to no object any more."""
        # Late: most processes never collect.
        module = importlib.import_module("michelangelo.app.blob_collector")
        return cast(
            "BlobCollector", module.BlobCollector(self.client, self.blobs, platform=self.identity, logs=self.logs)
        )

    def close(self) -> None:
        self.client.close()
        newest = self.store.revision()
        if newest > self.kept_revisions:
            self.store.compact(newest - self.kept_revisions)
        self.store.close()
        self.blobs.close()
        self.api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def ensure_project(client: Client, name: str) -> None:
    """Make the project where there is none; its namespace comes with it."""
    try:
        client.get("Project", name, namespace=name)
    except errors.NotFoundError:
        project = {
            "apiVersion": "michelangelo.api/v2",
            "kind": "Project",
            "metadata": {"name": name, "namespace": name},
            "spec": {},
        }
        try:
            client.create(project)
        except errors.AlreadyExistsError:
            # Another process was quicker.
            return
