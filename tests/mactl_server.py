"""`mactl serve` as a process beside a test, for those that use it as a person does. It knows no client."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["serving"]


@contextlib.contextmanager
def serving(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """`mactl serve`, from when it says that it is ready to the end of the block."""
    command = ["mactl", "serve"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        said = ""
        while "https://" not in said:
            line = server.stdout.readline()
            assert line, f"the server ended before it was ready: {said}"
            said += line
        try:
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
