"""Calls of uv, the package resolver and installer: where it is, one command at a time, and its own words when it fails.

uv reads the user's own configuration (`UV_…`, uv.toml in the user's folder), so private indexes and mirrors work; the
system's certificates are trusted, as pip does. What is asked of it is executors/environments.py's matter.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

from michelangelo import errors

__all__ = ["Uv"]

_INSTALL = "install it with `pip install 'michelangelo-oss[environments]'`, or put uv on the PATH"
_TRUST = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}


class Uv:
    """`folder` is where uv runs, so that no project's own configuration changes the answer. Any thread may `end` it."""

    def __init__(self, folder: str, variables: Mapping[str, str] | None = None) -> None:
        """`variables` are added to the environment of uv and of what it builds."""
        self._folder = folder
        self._variables = dict(variables or {})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_ended = False

    def run(self, *arguments: str, stdin: str = "", pass_fds: Sequence[int] = ()) -> str:
        """What it prints. RequirementsError with uv's words when it fails, ends early, or is not there."""
        program = _program()
        with self._lock:
            if self._is_ended:
                raise errors.RequirementsError("uv was stopped, because nobody needs its result any more")
            try:
                # In a group of its own, so that what it builds with ends with it.
                process = self._process = subprocess.Popen(
                    [program, *arguments, "--quiet", "--no-progress", "--color", "never"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=self._folder,
                    env={**_TRUST, **os.environ, **self._variables},
                    pass_fds=tuple(pass_fds),
                    start_new_session=True,
                )
            except OSError as e:
                raise errors.RequirementsError(f"{program} cannot be started: {e.strerror}; {_INSTALL}") from e
        try:
            out, said = process.communicate(stdin)
        finally:
            _end(process)
        if process.returncode:
            raise errors.RequirementsError(said.strip() or f"uv {arguments[0]} ended with status {process.returncode}")
        return out

    def end(self) -> None:
        """End what runs, and run nothing more."""
        with self._lock:
            self._is_ended = True
            if self._process is not None:
                _end(self._process)


def _program() -> str:
    """The uv of this Python's packages, else the one on the PATH."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        return str(importlib.import_module("uv").find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise errors.RequirementsError(f"requirements of tasks need uv, which is not installed: {_INSTALL}")
    return found


def _end(process: subprocess.Popen[str]) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
