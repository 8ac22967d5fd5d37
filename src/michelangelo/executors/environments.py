"""Environments for tasks with requirements: locked once, made when first needed, kept, and shared by all runs.

Requirements become a lock: one line per package, with its version and the hashes of its files, for every platform.
A lock becomes a folder with a Python of its own, which is also told where this package is, and nothing else of ours.
A folder is complete or not there: it is made under another name and renamed, by one process at a time (a file lock,
which uv holds too, so that one that outlives us is waited for). Who runs Python in it is executors/process.py's matter.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from michelangelo import errors
from michelangelo.executors.uv import Uv

__all__ = ["WORKER_REQUIREMENTS", "Environment", "Environments", "KeptEnvironment", "package_names", "resolve"]

WORKER_REQUIREMENTS: Final = ("orjson>=3.10,<4",)
"""What our worker imports, beyond the standard library: it is resolved together with the task's requirements."""

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_RECORD: Final = "environment.json"
_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_SITE: Final = os.path.join("lib", f"python{_PYTHON}", "site-packages")
_SHOWN: Final = 5


def resolve(requirements: Sequence[str], folder: str, *, upgrade: bool = False) -> tuple[str, ...]:
    """The lock of `requirements`: as it was chosen before, kept below `folder`; or, new or with `upgrade`, as uv
    chooses it now. RequirementsError with uv's words."""
    key = _digest([_PYTHON, *WORKER_REQUIREMENTS, *requirements])
    path = os.path.join(folder, "locks", f"{key}.txt")
    if not upgrade:
        with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
            os.utime(path)
            return tuple(file.read().splitlines())
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        text = Uv(folder).run(
            *("pip", "compile", "--universal", "--python-version", _PYTHON, "--python", sys.executable),
            *("--generate-hashes", "--no-header", "--no-annotate", "-"),
            stdin="\n".join([*requirements, *WORKER_REQUIREMENTS]) + "\n",
        )
    except errors.RequirementsError as e:
        raise errors.RequirementsError(f"the requirements {', '.join(requirements)} cannot be had: {e.message}") from e
    lines = _lines(text)
    scratch = f"{path}.{os.getpid()}"
    with open(scratch, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    os.replace(scratch, path)
    return lines


def package_names(lock: Sequence[str]) -> str:
    """The packages of a lock for people, our own needs left out: `tabulate 0.9.0, toolz 1.0.0 and 3 more`."""
    ours = {name.partition(">")[0] for name in WORKER_REQUIREMENTS}
    pairs = [line.partition(" ")[0].partition("==") for line in lock]
    shown = [f"{name} {version}".strip() for name, _, version in pairs if name not in ours]
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


class Environment:
    """A complete environment, in use until `close`: nobody removes it meanwhile."""

    def __init__(self, path: str, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    @property
    def python(self) -> str:
        return _python(self.path)

    def close(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


@dataclass(frozen=True, slots=True)
class KeptEnvironment:
    """An environment that is kept, as a listing shows it; `used_at` in seconds since the epoch."""

    digest: str
    requirements: tuple[str, ...]
    used_at: float

    @property
    def packages(self) -> str:
        """For people, shortened."""
        return package_names(self.requirements)


class Environments:
    """Those that are kept in one folder, which any number of processes may share."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find(self, lock: Sequence[str]) -> Environment | None:
        """The environment, if it is complete and nobody is making it."""
        path = self._path(lock)
        if not _is_complete(path):
            return None
        fd = self._open(path)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _is_complete(path):
                os.utime(path)
                return Environment(path, fd)
        os.close(fd)
        return None

    def make(self, lock: Sequence[str], uv: Uv) -> Environment:
        """The environment, made if need be; waits for another process that makes it. RequirementsError with uv's words,
        also when `uv` is ended meanwhile."""
        path = self._path(lock)
        while (found := self.find(lock)) is None:
            fd = self._open(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if not _is_complete(path):
                    self._make(lock, path, uv, fd)
            except OSError as e:
                raise errors.RequirementsError(
                    f"cannot make the environment {path}: {e.strerror}; see that there is room, and that it is writable"
                ) from e
            finally:
                os.close(fd)
        return found

    def kept(self) -> list[KeptEnvironment]:
        """Those that are complete, the last used first."""
        found = []
        for path in glob.glob(os.path.join(glob.escape(self.folder), "*", _RECORD)):
            with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
                requirements = tuple(json.load(file)["requirements"])
                place = os.path.dirname(path)
                found.append(KeptEnvironment(os.path.basename(place), requirements, os.stat(place).st_mtime))
        return sorted(found, key=lambda one: one.used_at, reverse=True)

    def prune(self, older_than_seconds: float) -> list[KeptEnvironment]:
        """Remove environments, and locks, that were last used (made) before that; those in use stay. Returns which."""
        limit = time.time() - older_than_seconds
        removed = [one for one in self.kept() if one.used_at <= limit and self._remove(one.digest)]
        for path in glob.glob(os.path.join(glob.escape(self.folder), "locks", "*.txt")):
            with contextlib.suppress(OSError):
                if os.stat(path).st_mtime <= limit:
                    os.unlink(path)
        return removed

    def _remove(self, digest: str) -> bool:
        path = os.path.join(self.folder, digest)
        fd = self._open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            os.unlink(os.path.join(path, _RECORD))  # no half of it may be taken for the whole
            shutil.rmtree(path, ignore_errors=True)
            return True
        finally:
            os.close(fd)

    def _path(self, lock: Sequence[str]) -> str:
        return os.path.join(self.folder, _digest([*_platform(), *lock]))

    def _open(self, path: str) -> int:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        return os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _make(self, lock: Sequence[str], path: str, uv: Uv, lock_fd: int) -> None:
        """Under the lock of `path`."""
        scratch = f"{path}.making"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            fds = (lock_fd,)
            uv.run("venv", "--relocatable", "--no-project", "--python", _base_python(), scratch, pass_fds=fds)
            wanted = os.path.join(scratch, "requirements.txt")
            with open(wanted, "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lock)
            uv.run(
                *("pip", "install", "--python", _python(scratch), "--require-hashes", "--no-deps", "-r", wanted),
                pass_fds=fds,
            )
            site = os.path.join(scratch, _SITE)
            # A link, so that also what a task starts by itself with this Python finds the package, and it alone.
            os.symlink(_PACKAGE, os.path.join(site, "michelangelo"))
            record = {"requirements": [line.partition(" ")[0] for line in lock], "packages": sorted(os.listdir(site))}
            with open(os.path.join(scratch, _RECORD), "w", encoding="utf-8") as file:
                json.dump(record, file)
            shutil.rmtree(path, ignore_errors=True)
            os.rename(scratch, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _is_complete(path: str) -> bool:
    """Whether everything that was installed is still there, as far as a quick look tells."""
    try:
        with open(os.path.join(path, _RECORD), encoding="utf-8") as file:
            packages = json.load(file)["packages"]
        present = set(os.listdir(os.path.join(path, _SITE)))
    except (OSError, ValueError, KeyError):
        return False
    return present.issuperset(packages) and os.access(_python(path), os.X_OK)


def _python(path: str) -> str:
    return os.path.join(path, "bin", "python")


def _base_python() -> str:
    """The interpreter below a virtual environment, if this is one."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _platform() -> Iterator[str]:
    """What an environment depends on besides its lock."""
    yield from (sys.implementation.cache_tag or "", sys.platform, os.uname().machine, _base_python(), _PACKAGE)


def _lines(text: str) -> tuple[str, ...]:
    """One requirement per line: uv writes its hashes on lines of their own."""
    joined = text.replace("\\\n", " ")
    lines = (" ".join(line.split()) for line in joined.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:24]
