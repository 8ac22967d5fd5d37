"""A server: the API over HTTP and all controllers, on one home. Several may serve one home: one of them leads.

The composition root of a server. What it starts, it ends: on SIGTERM and SIGINT the port is closed, the drivers that it
started stop where another server can go on with their runs, and the store is closed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from michelangelo import errors
from michelangelo.apiserver import auth, keyfiles, kubeconfig, tls
from michelangelo.apiserver.http.app import AppParts
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.app.blob_collector import Schedule
from michelangelo.app.compactor import Compactor
from michelangelo.app.drivers import LocalDrivers
from michelangelo.app.platform import Platform, ensure_project
from michelangelo.app.settings import Settings
from michelangelo.client.client import Object
from michelangelo.controllers import assembly
from michelangelo.runtime.manager import Manager

__all__ = ["Server", "Started", "serve"]

_LEADER_LEASE: Final = "michelangelo-controllers"
_RUN_TOKEN_SECONDS: Final = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Started:
    """What a person needs to know of a server that is ready."""

    url: str
    kubeconfig: str
    home: str


class Server:
    """`start` and `stop`, or `serve` to block until a signal comes."""

    def __init__(self, settings: Settings, *, allow_remote: bool = False) -> None:
        """Opens the home and takes the port. Raises SettingsError (a port in use, a bad address), StorageError."""
        self._settings = settings
        self._platform = Platform.open(settings, durability="power", user="system:controllers")
        try:
            self._token = keyfiles.ensure_token(settings.token)
            run_tokens = auth.RunTokens(keyfiles.ensure_key(settings.run_key))
            certificate = tls.ensure(settings.tls, hosts=_hosts(settings.host))
            self._authority = certificate.authority.read_bytes()
            parts = AppParts(
                api=self._platform.api,
                authenticator=auth.Authenticator(self._token, run_tokens),
                hosts=_hosts(settings.host),
                blobs=self._platform.blobs,
                logs=self._platform.logs,
                collect=lambda age, dry: self._platform.collector.collect(age_seconds=age, dry_run=dry).to_json(),
            )
            self._http = HttpServer(
                parts, host=settings.host, port=settings.port, certificate=certificate, allow_remote=allow_remote
            )
            self._http.bind()
        except errors.MichelangeloError:
            self._platform.close()
            raise

        self._drivers = LocalDrivers(settings, lambda run: self._access(run_tokens, run))
        self._manager = Manager(
            self._platform.client, leader_lease=_LEADER_LEASE, lease_duration_seconds=settings.lease_seconds
        )
        assembly.add_all(self._manager, self._drivers)
        self._compactor = Compactor(self._platform.store)
        self._collections = Schedule(
            self._platform.collector.collect,
            every_seconds=3600.0 * settings.collect_hours,
            is_leading=lambda: self._manager.is_leading,
        )

    @property
    def url(self) -> str:
        return self._http.url

    def start(self) -> Started:
        """Serve in threads; returns when requests are answered."""
        self._http.start()
        return self._begin()

    def serve(self, ready: Callable[[Started], None]) -> None:
        """Serve in this thread until SIGINT or SIGTERM; then stop. `ready` is called when requests are answered."""
        try:
            self._http.serve(lambda: ready(self._begin()))
        finally:
            self.stop()

    def stop(self) -> None:
        """End everything that was started, in the opposite order."""
        self._collections.stop()
        self._compactor.stop()
        self._manager.stop()
        self._drivers.close()
        self._http.stop()
        self._platform.close()

    def _access(self, run_tokens: auth.RunTokens, run: Object) -> dict[str, str]:
        """How the driver of a run reaches this server, with tokens for that run, and to read the one it continues."""

        def issue(name: str, *, read_only: bool) -> str:
            scope = auth.RunScope(run["metadata"]["namespace"], name, run["metadata"]["uid"], read_only)
            return run_tokens.issue(scope, lifetime_seconds=_RUN_TOKEN_SECONDS)

        access = {"server": self._http.url, "authority": self._authority.decode()}
        access["token"] = issue(run["metadata"]["name"], read_only=False)
        earlier = ((run["spec"].get("resume") or {}).get("pipelineRun") or {}).get("name")
        return {**access, "earlier_token": issue(earlier, read_only=True)} if earlier else access

    def _begin(self) -> Started:
        config = kubeconfig.document(
            server=self._http.url, token=self._token, authority=self._authority, namespace=self._settings.project
        )
        ensure_project(self._platform.client, self._settings.project)
        kubeconfig.write(self._settings.kubeconfig, config)
        self._manager.start()
        self._compactor.start()
        self._collections.start()
        return Started(self._http.url, str(self._settings.kubeconfig), str(self._settings.home))


def serve(settings: Settings, ready: Callable[[Started], None], *, allow_remote: bool = False) -> None:
    """Serve the home until SIGINT or SIGTERM. Raises SettingsError (such as a port in use), StorageError."""
    Server(settings, allow_remote=allow_remote).serve(ready)


def _hosts(host: str) -> tuple[str, ...]:
    """The names and addresses that the certificate and the Host check know."""
    known = list(tls.HOSTS)
    try:
        if ipaddress.ip_address(host).is_unspecified:
            return tuple(known)
    except ValueError:
        pass
    return tuple(dict.fromkeys([*known, host]))
