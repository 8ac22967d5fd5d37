"""Files that hold a token or a key: made with random content where they are missing, and readable by their owner only.

Light, for every process that opens a home may need one. What the keys are for is their users' matter.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

from michelangelo import errors

__all__ = ["ensure_key", "ensure_token"]


def ensure_token(path: Path) -> str:
    """The owner's token, made (256 bits, mode 0600) where the file is not there. Raises SettingsError."""
    return _ensure(path, lambda: base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=")).decode().strip()


def ensure_key(path: Path) -> bytes:
    """A key as hexadecimal digits (256 bits), made where the file is not there. Raises SettingsError."""
    return _ensure(path, lambda: os.urandom(32).hex().encode())


def _ensure(path: Path, make: Callable[[], bytes]) -> bytes:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _write_new(path, make())
        except FileExistsError:
            pass
        value = path.read_bytes()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as e:
        raise errors.SettingsError(f"cannot read or make {path}: {e.strerror}; see that the folder is yours") from e
    if len(value.strip()) < 16:
        raise errors.SettingsError(f"{path} is damaged: delete it and start again, and a new one is made")
    return value


def _write_new(path: Path, value: bytes) -> None:
    """All of it or nothing, and only where nothing was: two servers that start at once agree on one file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    if path.exists():
        raise FileExistsError(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
