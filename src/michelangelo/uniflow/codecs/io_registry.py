"""Upstream's registry of readers and writers of custom types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

__all__ = ["IO", "IORegistry", "default_io", "io_registry"]

_T = TypeVar("_T")


class IO(ABC, Generic[_T]):
    """Writes values of one type to a URL, and reads them from there."""

    @abstractmethod
    def write(self, url: str, value: _T) -> Any:
        """Returns metadata for `read`, plain JSON, or None."""

    @abstractmethod
    def read(self, url: str, metadata: Any) -> _T: ...


class IORegistry:
    """Which `IO` is for which type, by the nearest base class."""

    def __init__(self, registry: Mapping[type, IO[Any] | Callable[[], IO[Any]]] | None = None) -> None:
        self._registry = dict(registry or {})

    def set(self, kind: type, io: IO[Any] | Callable[[], IO[Any]], force: bool = False) -> IORegistry:
        if kind in self._registry and not force:
            raise KeyError(f"an IO for {kind.__qualname__} is registered already; force=True replaces it")
        self._registry[kind] = io
        return self

    def update(self, ios: Mapping[type, IO[Any] | Callable[[], IO[Any]]], force: bool = False) -> IORegistry:
        for kind, io in ios.items():
            self.set(kind, io, force=force)
        return self

    def copy(self) -> IORegistry:
        return IORegistry(self._registry)

    def __getitem__(self, kind: type) -> IO[Any]:
        for base in kind.__mro__:
            if base in self._registry:
                io = self._registry[base]
                if not isinstance(io, IO):
                    io = self._registry[base] = io()
                return io
        raise KeyError(f"no IO is registered for {kind.__qualname__}")

    def __setitem__(self, kind: type, io: IO[Any] | Callable[[], IO[Any]]) -> None:
        self.set(kind, io)

    def __contains__(self, kind: type) -> bool:
        return any(base in self._registry for base in kind.__mro__)


default_io = IORegistry()


def io_registry() -> IORegistry:
    """The default registry."""
    return default_io
