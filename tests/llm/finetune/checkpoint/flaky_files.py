"""A file system in memory whose writes fail, or wait, when a test says so."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FlakyFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """`flaky://`. What `failures` holds is raised by the next writes, one each; None lets one pass."""

    protocol = ("flaky",)
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures: ClassVar[list[OSError | None]] = []
    reading: ClassVar[list[OSError | None]] = []
    gate: ClassVar[threading.Event] = threading.Event()
    """Writes wait for it."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("flaky://", "memory://"))
        return stripped

    @classmethod
    def reset(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.failures.clear()
        cls.reading.clear()
        cls.gate.set()

    def _open(self, path: str, mode: str = "rb", **arguments: Any) -> Any:
        if mode == "wb":
            self._meet(self.failures)
            self.gate.wait(60)
        else:
            self._meet(self.reading)
        return super()._open(path, mode, **arguments)

    def pipe_file(self, path: str, value: bytes, **arguments: Any) -> None:
        self._meet(self.failures)
        self.gate.wait(60)
        super().pipe_file(path, value, **arguments)

    def _meet(self, failures: list[OSError | None]) -> None:
        if failures and (failure := failures.pop(0)) is not None:
            raise failure


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
