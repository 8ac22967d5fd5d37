"""HTTP requests to one API server: connections, credentials, retries, and errors by meaning. It knows no verb and no
kind.

What is retried: anything that the server cannot have seen (no connection came about) or refused unseen (429), and
reads. A write whose connection broke is not sent again: only its caller knows whether that is safe."""

from __future__ import annotations

import base64
import os
import random
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson
import urllib3

from michelangelo import errors
from michelangelo.client.kubeconfig import Endpoint
from michelangelo.meta import status

__all__ = ["Transport"]

_ATTEMPTS: Final = 3
_RETRY_DELAYS_SECONDS: Final = (0.05, 0.25)
_MAX_RETRY_AFTER_SECONDS: Final = 5.0
_CONNECT_TIMEOUT_SECONDS: Final = 5.0


class Transport:
    """Keep-alive connections to `endpoint`, shared by any number of threads.

    `sleep` is asked to wait between the attempts of one request (seconds).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_seconds: float = 30.0,
        pool_size: int = 16,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._sleep = sleep
        self._prefix = urlsplit(endpoint.server).path.rstrip("/")
        self._headers = _headers(endpoint)
        self._pool = _pool(endpoint, pool_size)

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        """The body of the answer. `body` is sent as JSON, bytes as they are. Raises the ApiError of a refusal,
        UnavailableError without an answer."""
        headers = {**self._headers, "Accept": accept}
        data: bytes | None = None
        if body is not None:
            data = body if isinstance(body, bytes) else orjson.dumps(body)
            headers["Content-Type"] = content_type
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT_SECONDS, read=self._timeout_seconds)
        response = self._attempts(method, self._url(path, query), data, headers, timeout, stream=False)
        return response.data

    def open(
        self, path: str, *, query: Mapping[str, str] | None = None, idle_timeout_seconds: float | None = None
    ) -> urllib3.BaseHTTPResponse:
        """A GET whose body is read bit by bit by the caller, who closes it. None: it may be silent for ever."""
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT_SECONDS, read=idle_timeout_seconds)
        headers = {**self._headers, "Accept": "application/json"}
        return self._attempts("GET", self._url(path, query), None, headers, timeout, stream=True)

    def unavailable(self, cause: BaseException) -> errors.UnavailableError:
        """What a broken connection means, in one sentence that says what to do."""
        server = self.endpoint.server
        if isinstance(cause, urllib3.exceptions.SSLError):
            return errors.UnavailableError(
                f"no trusted connection to {server}: {cause}; check the certificate authority in the kubeconfig"
            )
        if isinstance(cause, urllib3.exceptions.NameResolutionError):
            return errors.UnavailableError(f"the host of {server} is unknown: check the server's address")
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return errors.UnavailableError(f"no server answers at {server}: start one with `mactl serve`")
        if isinstance(cause, urllib3.exceptions.TimeoutError):
            return errors.UnavailableError(f"{server} did not answer in time: check whether the server is overloaded")
        return errors.UnavailableError(f"the connection to {server} broke: {cause}")

    def close(self) -> None:
        self._pool.close()

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return f"{self._prefix}{path}?{urlencode(query)}" if query else f"{self._prefix}{path}"

    def _attempts(
        self,
        method: str,
        url: str,
        data: bytes | None,
        headers: dict[str, str],
        timeout: urllib3.Timeout,
        *,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        for delay in (*_RETRY_DELAYS_SECONDS, None):
            try:
                response = self._pool.urlopen(
                    method,
                    url,
                    body=data,
                    headers=headers,
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    preload_content=not stream,
                )
            except urllib3.exceptions.HTTPError as e:
                if delay is None or not _may_retry(method, e):
                    raise self.unavailable(e) from e
                self._sleep(delay * random.uniform(0.5, 1.0))
                continue
            if response.status < 300:
                return response
            pause = _pause(method, response, delay)
            if pause is None:
                raise _refusal(response)
            response.drain_conn()
            self._sleep(pause)
        raise AssertionError("the last attempt neither returned nor raised")


def _may_retry(method: str, cause: urllib3.exceptions.HTTPError) -> bool:
    if isinstance(cause, urllib3.exceptions.SSLError | urllib3.exceptions.NameResolutionError):
        return False
    not_sent = isinstance(cause, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
    return not_sent or (method == "GET" and isinstance(cause, urllib3.exceptions.ProtocolError))


def _pause(method: str, response: urllib3.BaseHTTPResponse, delay: float | None) -> float | None:
    """How long to wait before asking again; None: the answer stands."""
    if delay is None or not (response.status == 429 or (response.status == 503 and method == "GET")):
        return None
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), _MAX_RETRY_AFTER_SECONDS) if asked.isdigit() else delay


def _refusal(response: urllib3.BaseHTTPResponse) -> errors.ApiError:
    """The error that the server's Status stands for; a body that is no Status is shown shortened."""
    data = response.data
    response.release_conn()
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != "Status":
        text = data[:200].decode(errors="replace").strip() or str(response.reason or "no message")
        # What a proxy says when the server behind it is away is no error inside the server.
        code = 503 if response.status in (502, 504) else response.status
        document = {"code": code, "message": f"the server answered {response.status}: {text}"}
    return status.from_status({"code": response.status, **document})


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"User-Agent": "michelangelo"}
    if endpoint.token:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    elif endpoint.username:
        pair = f"{endpoint.username}:{endpoint.password}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return headers


def _pool(endpoint: Endpoint, size: int) -> urllib3.HTTPConnectionPool:
    parts = urlsplit(endpoint.server)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise errors.SettingsError(f"the server {endpoint.server!r} is no valid URL: {e}") from e
    if not host or parts.scheme not in ("http", "https"):
        raise errors.SettingsError(f"the server {endpoint.server!r} is no http or https URL")
    options = [*urllib3.connection.HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if hasattr(socket, "TCP_KEEPIDLE"):
        # Linux: notice after a minute that the peer is gone, also in a silent watch.
        options += [(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30), (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)]
    if parts.scheme == "http":
        return urllib3.HTTPConnectionPool(host, port, maxsize=size, socket_options=options)
    if endpoint.insecure:
        # The kubeconfig asks for it in so many words; a warning at each request says nothing new.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return urllib3.HTTPSConnectionPool(
        host,
        port,
        maxsize=size,
        socket_options=options,
        ssl_context=_ssl_context(endpoint),
        cert_reqs="CERT_NONE" if endpoint.insecure else "CERT_REQUIRED",
        assert_hostname=False if endpoint.insecure else None,
        server_hostname=endpoint.server_name or None,
    )


def _ssl_context(endpoint: Endpoint) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=endpoint.ca or None)
    except ssl.SSLError as e:
        raise errors.SettingsError(f"the certificate authority for {endpoint.server} is no PEM certificate: {e}") from e
    if endpoint.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if endpoint.client_certificate:
        # The ssl module reads client certificates from files only; the file is there for the length of this call.
        descriptor, name = tempfile.mkstemp(prefix="michelangelo-", suffix=".pem")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{endpoint.client_certificate}\n{endpoint.client_key}\n")
            context.load_cert_chain(name)
        except ssl.SSLError as e:
            raise errors.SettingsError(
                f"the client certificate for {endpoint.server} and its key do not fit: {e}"
            ) from e
        finally:
            os.unlink(name)
    return context
