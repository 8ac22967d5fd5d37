"""Hands an attempt its secrets for as long as it runs: environment variables, and files that only its user can read.

The values come with the attempt, from the driver's memory; nothing here stores them anywhere else.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence

from michelangelo.executors.base import SecretValue

__all__ = ["handed"]


@contextlib.contextmanager
def handed(secrets: Sequence[SecretValue], folder: str) -> Iterator[None]:
    """The secrets are in the environment inside the block; their files lie in `folder` (empty: a temporary one), which
    whoever made it removes."""
    if not secrets:
        yield
        return
    with contextlib.ExitStack() as stack:
        before = {one.variable: os.environ.get(one.variable) for one in secrets}
        place = folder or stack.enter_context(tempfile.TemporaryDirectory())
        try:
            for one in secrets:
                os.environ[one.variable] = _write(one, place) if one.as_file else one.value
            yield
        finally:
            for variable, value in before.items():
                if value is None:
                    os.environ.pop(variable, None)
                else:
                    os.environ[variable] = value


def _write(secret: SecretValue, folder: str) -> str:
    # mkstemp makes it for its owner only.
    descriptor, path = tempfile.mkstemp(prefix="secret-", dir=folder)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(secret.value)
    return path
