"""A real S3-compatible server (moto) on loopback, and a gate in front of it that can be shut."""

from __future__ import annotations

import contextlib
import datetime
import selectors
import socket
import threading
import uuid
from collections.abc import Iterator
from typing import Any

from moto.backends import get_backend
from moto.server import ThreadedMotoServer

from michelangelo.blobs.s3 import S3BlobStore

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key-of-tests", "AWS_SECRET_ACCESS_KEY": "secret-of-tests"}


class S3:
    """One server with its buckets in memory."""

    def __init__(self, server: ThreadedMotoServer) -> None:
        host, port = server.get_host_and_port()
        self.port = port
        self.endpoint = f"http://{host}:{port}"
        self._stores: list[S3BlobStore] = []

    def close(self) -> None:
        """Close the stores that were opened."""
        for store in self._stores:
            store.close()
        self._stores.clear()

    def bucket(self) -> str:
        """A new bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self._backend().create_bucket(name, "us-east-1")
        return name

    def store(
        self, bucket: str = "", prefix: str = "some/prefix", *, endpoint: str = "", **options: Any
    ) -> S3BlobStore:
        credentials = {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint or self.endpoint}
        self._stores.append(S3BlobStore(bucket or self.bucket(), prefix, credentials=credentials, **options))
        return self._stores[-1]

    def keys(self, bucket: str) -> dict[str, Any]:
        """The objects behind the server's back, by key."""
        return dict(self._backend().buckets[bucket].keys.items())

    def damage(self, bucket: str, digest: str) -> None:
        """Change the bytes of a blob behind the server's back."""
        key = self._blob(bucket, digest)
        data = bytes(key.value)
        key.value = bytes([data[0] ^ 1]) + data[1:]

    def age(self, bucket: str, digest: str, seconds: float) -> None:
        """Make a blob look as if it had been written earlier."""
        key = self._blob(bucket, digest)
        key.last_modified = key.last_modified - datetime.timedelta(seconds=seconds)

    def _blob(self, bucket: str, digest: str) -> Any:
        return next(key for name, key in self.keys(bucket).items() if name.endswith(f"{digest[7:9]}/{digest[9:]}"))

    def _backend(self) -> Any:
        return get_backend("s3")["123456789012"]["aws"]


@contextlib.contextmanager
def serving() -> Iterator[S3]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield S3(server)
    finally:
        server.stop()


class Gate:
    """A relay on a port of its own. Shut, it breaks what goes through and refuses connections; open, it relays."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.cut_after_bytes = 0
        """Break each connection when so many bytes have come back through it; 0: never."""
        self._accept()

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def reopen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._accept()

    def _accept(self) -> None:
        listener = self._listener

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=self._relay, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with (
            client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
            selectors.DefaultSelector() as wait,
        ):
            with self._lock:
                self._open |= {client, server}
            pairs = {client: server, server: client}
            for one in pairs:
                wait.register(one, selectors.EVENT_READ)
            back, going = 0, True
            while going:
                for ready, _ in wait.select():
                    source: Any = ready.fileobj
                    try:
                        data = source.recv(65536)
                        if source is server and self.cut_after_bytes:
                            data = data[: max(0, self.cut_after_bytes - back)]
                        back += len(data) if source is server else 0
                        pairs[source].sendall(data)
                    except OSError:
                        data = b""
                    going = going and bool(data)
            with self._lock:
                self._open -= {client, server}
