"""`Secret`: what a task says about a secret that it needs. A reference only: the value is in the Secret object.

    @uniflow.task(secrets=[uniflow.Secret("hub", "token", env="HF_TOKEN")])
    def download() -> uniflow.Directory: ...

The value is read when an attempt starts, so a secret can be changed while a run goes on; it is in no journal, cache key
or log. Read it inside the function: at the time of the module's import it may not be there yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Secret"]

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Secret:
    """Key `key` of the Secret object `name` in the run's project, handed to the task as an environment variable."""

    name: str
    key: str
    env: str = ""
    """The variable; empty: `NAME_KEY` in capitals."""
    as_file: bool = False
    """The variable holds the path of a file with the value (mode 0600), removed after the attempt."""

    def __post_init__(self) -> None:
        if not self.name or not self.key:
            raise ValueError(f"{self!r}: give the name of a Secret and one of its keys")
        if not self.env:
            object.__setattr__(self, "env", re.sub(r"[^A-Za-z0-9_]", "_", f"{self.name}_{self.key}").upper())
        if not _VARIABLE.match(self.env):
            raise ValueError(f"{self!r}: env must be the name of an environment variable, such as HF_TOKEN")
