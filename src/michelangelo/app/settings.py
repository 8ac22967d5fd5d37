"""The settings of a process: one frozen value, made of the environment and of the home's `config.toml`.

The only reader of the environment. What concerns one object is a field of that object and no setting. In order of
precedence: variable (`MA_…`), key of `config.toml`, default.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from michelangelo import errors

__all__ = ["DEFAULT_PORT", "DEFAULT_PROJECT", "Settings", "from_json", "load", "project_name", "run_variables"]

DEFAULT_PROJECT: Final = "local"
"""The project of `python flow.py`."""
DEFAULT_PORT: Final = 15566
_Durability = Literal["process", "power"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Every field but `home`, `no_color` and `debug` is a key of `config.toml` too, by the same name."""

    home: Path
    """MA_HOME: where everything is kept. Default: ~/.ma"""
    project: str = DEFAULT_PROJECT
    """MA_PROJECT: the project (namespace) of runs that name none."""
    durability: _Durability | None = None
    """MA_DURABILITY: what an acknowledged write survives: the death of any `process`, or loss of `power`. Default:
    `process` for `python flow.py`, `power` for a server."""
    host: str = "127.0.0.1"
    """MA_HOST: the address that a server listens on."""
    port: int = DEFAULT_PORT
    """MA_PORT: its port; 0 takes a free one."""
    task_slots: int = 0
    """MA_TASK_SLOTS: how many tasks of a run may run in processes at a time. 0: the number of processors."""
    task_memory: str = ""
    """MA_TASK_MEMORY: limit on a task's memory where the task sets none, such as 4Gi. Empty: none."""
    log_limit: str = "16Mi"
    """MA_LOG_LIMIT: how much of the output of one attempt is kept."""
    lease_seconds: int = 15
    """MA_LEASE_SECONDS: after how long without a sign of life a run goes to another driver. A driver of this machine
    that is known to be dead is replaced at once."""
    storage_url: str = ""
    """MA_STORAGE_URL: where blobs are kept, such as s3://bucket/prefix. Default: a folder of the home. One platform has
    it for itself, or nothing in it is ever collected."""
    storage_secret: str = ""
    """MA_STORAGE_SECRET: the Secret with the credentials of storage_url, `name` or `project/name`. Empty: those of the
    environment hold."""
    storage_retry_seconds: int = 30
    """MA_STORAGE_RETRY_SECONDS: how long a request to S3 is tried again before the run stops, to be resumed."""
    collect_hours: int = 24
    """MA_COLLECT_HOURS: how often a server removes blobs that nothing refers to. 0: never."""
    api_server: str = ""
    """MA_API_SERVER: the server that `mactl` speaks to, `host:port` or a URL, in the place of the current context's
    (also MACTL_ADDRESS). Empty: that of the context."""
    workspace: str = ""
    """MA_WORKSPACE: the folder or URL that tasks find in UF_STORAGE_URL, which sets it too. Empty: `workspace` in the
    home."""
    ray_address: str = ""
    """MA_RAY_ADDRESS: host:port of the Ray cluster of tasks whose RayTask names none. Empty: a local Ray for each
    run that asks for one."""
    ray_start_seconds: int = 120
    """MA_RAY_START_SECONDS: how long a Ray may take to start, or to answer, before its tasks fail."""
    no_color: bool = False
    """NO_COLOR: plain progress."""

    @property
    def database(self) -> Path:
        return self.home / "michelangelo.db"

    @property
    def blobs(self) -> Path:
        return self.home / "blobs"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def token(self) -> Path:
        return self.home / "token"

    @property
    def tls(self) -> Path:
        return self.home / "tls"

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def config_file(self) -> Path:
        return self.home / "config.toml"

    @property
    def environments(self) -> Path:
        """Environments of tasks with requirements, and the locks that they are made of."""
        return self.home / "environments"

    @property
    def platform_id(self) -> Path:
        """Tells this platform from others where it shares something with them."""
        return self.home / "platform-id"

    @property
    def run_key(self) -> Path:
        """Signs the tokens of runs."""
        return self.home / "run-token.key"

    @property
    def secrets_key(self) -> Path:
        """Encrypts Secrets at rest."""
        return self.home / "secrets.key"

    @property
    def audit(self) -> Path:
        return self.home / "audit.log"

    def to_json(self) -> dict[str, Any]:
        """For another process; `from_json` reads it."""
        return {**dataclasses.asdict(self), "home": str(self.home)}

    def blobs_url(self, *, durability: _Durability) -> str:
        """Where all processes find the blobs. `durability` is the default where none is set."""
        if self.storage_url.startswith("s3:"):
            return f"{self.storage_url}?patience={self.storage_retry_seconds}"
        if self.storage_url and not self.storage_url.startswith("file:"):
            return self.storage_url
        return (self.storage_url or self.blobs.as_uri()) + (
            "?sync=true" if (self.durability or durability) == "power" else ""
        )

    def prepare_workspace(self) -> str:
        """Where tasks may leave files; the folder in the home is made. Raises SettingsError."""
        if self.workspace:
            return self.workspace
        folder = self.home / "workspace"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise errors.SettingsError(f"{folder} cannot be made: {error.strerror}; set MA_WORKSPACE") from error
        return str(folder)

    def prepare_home(self) -> None:
        """Make the home folder, for its owner only. Raises SettingsError."""
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise errors.SettingsError(
                f"MA_HOME={self.home}: the folder cannot be made: {error.strerror}; choose one that you may write to"
            ) from error


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. SettingsError names the variable or key and what is allowed there."""
    environ = os.environ if environ is None else environ
    home = Path(os.path.abspath(os.path.expanduser(environ.get("MA_HOME") or "~/.ma")))
    values: dict[str, Any] = {}
    file = home / "config.toml"
    configured = {**_read(file), **_read(home / "user_config.toml")}
    if "address" in configured:
        configured.setdefault("api_server", _address(configured.pop("address"), configured.get("use_tls", "")))
    unknown = sorted(configured.keys() - _READERS.keys() - _UPSTREAM)
    if unknown:
        known = ", ".join(_READERS)
        raise errors.SettingsError(f"{file}: there is no setting {', '.join(unknown)}; the settings are {known}")
    for name, read in _READERS.items():
        variable = next(filter(environ.get, (f"MA_{name.upper()}", *_ALIASES.get(name, ()))), "")
        if variable == "MACTL_ADDRESS":
            values[name] = read(variable, _address(environ[variable], environ.get("MACTL_USE_TLS", "")))
        elif variable:
            values[name] = read(variable, environ[variable])
        elif name in configured:
            values[name] = read(f"{file}: {name}", str(configured[name]))
    return Settings(home=home, no_color=bool(environ.get("NO_COLOR")), **values)


def from_json(document: Mapping[str, Any]) -> Settings:
    """What `Settings.to_json` wrote."""
    return Settings(**{**document, "home": Path(document["home"])})


def run_variables(given: Mapping[str, str | None], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a run: those of this process that are about runs (`CACHE_ENABLED`, `RAY_DEFAULT_…` and the
    like), and over them those `given`, where None stands for what the variable is in this process, if it is."""
    environ = os.environ if environ is None else environ
    found = {name: value for name, value in environ.items() if name.startswith(_OF_RUNS)}
    for name, value in given.items():
        taken = environ.get(name) if value is None else value
        if taken is not None:
            found[name] = taken
    return found


def project_name(place: str, text: str) -> str:
    """`text`, which `place` (a variable, a key, a flag) gives. Raises SettingsError when it cannot name a project."""
    allowed = text and len(text) <= 63 and text.strip("-") == text
    if not allowed or not all(char in "abcdefghijklmnopqrstuvwxyz0123456789-" for char in text):
        raise errors.SettingsError(f"{place}={text!r}: must be a project's name: a-z, 0-9 and -, at most 63 characters")
    return text


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    # Only who has a file pays for its parser.
    toml = importlib.import_module("tomllib")
    try:
        with file.open("rb") as opened:
            return cast(dict[str, Any], toml.load(opened))
    except (OSError, ValueError) as error:
        raise errors.SettingsError(f"{file} cannot be read: {error}; correct it, or remove it") from error


def _address(address: Any, use_tls: Any) -> str:
    """Upstream's address and, apart from it, whether it speaks TLS; ours always does, unless it is said not to."""
    text = str(address)
    return text if "://" in text else f"{'http' if str(use_tls).lower() == 'false' else 'https'}://{text}"


def _server(place: str, text: str) -> str:
    url = text if "://" in text else f"https://{text}"
    if not url.startswith(("https://", "http://")) or not url.partition("://")[2].strip("/"):
        raise errors.SettingsError(f"{place}={text!r}: must be host:port, or an http or https URL")
    return url.rstrip("/")


def _text(_place: str, text: str) -> str:
    return text


def _storage_url(place: str, text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator or not rest or not scheme.isalnum() or "?" in text or "@" in rest.partition("/")[0]:
        shown = place if "@" in text else f"{place}={text!r}"  # somebody may have put a password into it
        raise errors.SettingsError(
            f"{shown}: must be a URL such as s3://bucket/prefix or file:///folder, without credentials and options"
        )
    return text


def _durability(place: str, text: str) -> _Durability:
    if text not in ("process", "power"):
        raise errors.SettingsError(f"{place}={text!r}: must be 'process' or 'power'")
    return cast(_Durability, text)


def _number(lowest: int, highest: int) -> Callable[[str, str], int]:
    def read(place: str, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
            raise errors.SettingsError(f"{place}={text!r}: must be a whole number from {lowest} to {highest}")
        return int(text)

    return read


def _size(place: str, text: str) -> str:
    config = importlib.import_module("michelangelo.uniflow.config")
    try:
        config.memory_bytes(text)
    except ValueError as error:
        raise errors.SettingsError(f"{place}={text!r}: must be a quantity of bytes such as 512Mi, 2Gi") from error
    return text


_READERS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "project": project_name,
    "durability": _durability,
    "host": _text,
    "port": _number(0, 65535),
    "task_slots": _number(0, 10_000),
    "task_memory": _size,
    "log_limit": _size,
    "lease_seconds": _number(1, 3600),
    "storage_url": _storage_url,
    "storage_secret": _text,
    "storage_retry_seconds": _number(0, 3600),
    "collect_hours": _number(0, 8760),
    "api_server": _server,
    "workspace": _text,
    "ray_address": _text,
    "ray_start_seconds": _number(1, 3600),
}
_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {"api_server": ("MACTL_ADDRESS",), "workspace": ("UF_STORAGE_URL",)}
_UPSTREAM: Final = frozenset({"use_tls", "metadata", "minio", "plugin"})
"""Keys of the upstream program's files that say nothing here."""
_OF_RUNS: Final = (
    *("CACHE_ENABLED", "CACHE_VERSION", "UF_PLUGIN_"),
    *("RAY_DEFAULT_", "RAY_OVERRIDE_", "SPARK_DEFAULT_", "SPARK_OVERRIDE_"),
)
