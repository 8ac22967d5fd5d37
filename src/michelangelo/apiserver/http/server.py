"""The server process's socket, event loop and TLS around an application: uvicorn, started in a thread or in the
foreground."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final

import uvicorn

from michelangelo import errors
from michelangelo.apiserver.http.app import App, AppParts

if TYPE_CHECKING:
    from michelangelo.apiserver.tls import Certificate

__all__ = ["HttpServer"]

logger = logging.getLogger(__name__)

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10
"""How long requests under way may take once the server is asked to stop."""


class HttpServer:
    """One server on one address. `start` and `stop` once each, in this order; `serve` instead of `start` to block."""

    def __init__(
        self,
        parts: AppParts,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: Certificate | None = None,
        allow_remote: bool = False,
    ) -> None:
        """`port=0` takes a free one. Raises SettingsError for an address that others can reach unless
        `allow_remote`."""
        if not allow_remote and not _is_loopback(host):
            raise errors.SettingsError(
                f"{host} can be reached from other machines: listen on 127.0.0.1, or allow it explicitly if that is "
                "meant"
            )
        self._parts = parts
        self._host = host
        self._port = port
        self._certificate = certificate
        self._app: App | None = None
        self._server: _Server | None = None
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        scheme = "https" if self._certificate else "http"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}"

    def bind(self) -> int:
        """Take the port, so that it is known before anything else starts; returns it. Raises SettingsError."""
        if self._socket is None:
            self._socket = _listen(self._host, self._port)
            self._port = self._socket.getsockname()[1]
        return self._port

    def start(self) -> int:
        """Serve in a thread; returns the port once requests are answered. Raises SettingsError."""
        port = self.bind()
        started = threading.Event()

        def run() -> None:
            try:
                self._run(started.set)
            finally:
                started.set()

        self._thread = threading.Thread(target=run, name="michelangelo-http", daemon=True)
        self._thread.start()
        if not started.wait(_START_SECONDS):
            raise errors.UnavailableError(f"the server at {self.url} did not start within {_START_SECONDS:.0f} s")
        if self._failure is not None:
            raise self._failure
        return port

    def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve in this thread until SIGINT, SIGTERM or `stop` from another one. `ready` is called once requests are
        answered. Raises SettingsError."""
        self.bind()
        self._run(ready)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End watches, finish requests under way, close the port. It may be called from any thread, and twice."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, started: Callable[[], None]) -> None:
        assert self._socket is not None, "bind comes first"
        try:
            config = self._config()
            self._server = _Server(config, started)
            self._server.run(sockets=[self._socket])
        except BaseException as e:  # noqa: BLE001 - raised again in the thread that started this one
            self._failure = e
        finally:
            self._socket.close()

    def _config(self) -> uvicorn.Config:
        self._app = App(self._parts)
        config = uvicorn.Config(
            self._app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_STOP_SECONDS,
            ssl_certfile=None if self._certificate is None else self._certificate.certificate,
            ssl_keyfile=None if self._certificate is None else self._certificate.key,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as e:
            raise errors.SettingsError(f"cannot use the certificate {self._certificate}: {e}") from e
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        return config


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it has started and ends watches before it waits for requests to end."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, and nothing else: uvicorn would raise the signal again afterwards, and so end the process before what
        stands around the server could stop too."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        if isinstance(app, App):
            app.closing.set()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(2048)
        made.set_inheritable(False)
    except OSError as e:
        made.close()
        if e.errno == errno.EADDRINUSE:
            raise errors.SettingsError(
                f"port {port} of {host} is in use: stop what listens there (another server of this machine?) or choose "
                "another port"
            ) from e
        raise errors.SettingsError(f"cannot listen on port {port} of {host}: {e.strerror or e}") from e
    return made


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
