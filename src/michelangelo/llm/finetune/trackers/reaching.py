"""Is there anybody at a tracker's address: one quick try, before a library spends minutes on its own retries."""

from __future__ import annotations

import socket
from typing import Final
from urllib.parse import urlsplit

from michelangelo.llm.finetune.recording import SinkError

__all__ = ["check"]

_SECONDS: Final = 5.0
_PORTS: Final = {"http": 80, "https": 443}


def check(address: str, tracker: str) -> None:
    """Raises SinkError when nothing listens at an http or https address; other addresses are not judged."""
    parts = urlsplit(address)
    if parts.scheme not in _PORTS:
        return
    try:
        port = parts.port or _PORTS[parts.scheme]
        socket.create_connection((parts.hostname or "", port), timeout=_SECONDS).close()
    except (OSError, ValueError) as e:
        raise SinkError(
            f"{tracker} cannot be reached at {address}: {e}; is the address right, and the server up?"
        ) from e
