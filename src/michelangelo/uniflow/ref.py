"""`Ref`: large data as a workflow's own code sees it, without loading it.

A task gets the value; the workflow, which only passes it on, gets its reference. So a driver never holds data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

__all__ = ["Ref"]


@final
class Ref:
    """A reference to data. Give it to a task, which then gets the value, or `load()` it."""

    __slots__ = ("_load", "leaf")

    def __init__(self, leaf: Mapping[str, Any], load: Callable[[], Any]) -> None:
        self.leaf = dict(leaf)
        """The encoded value (`uniflow.codecs`)."""
        self._load = load

    @property
    def type(self) -> str:
        """The type of the data, as `module:qualname`."""
        return str(self.leaf.get("type", self.leaf["$codec"]))

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the data's bytes."""
        return str(self.leaf.get("blob", ""))

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.leaf.get("size", 0))

    @property
    def metadata(self) -> dict[str, Any]:
        """What the codec noted: shape and dtype, rows and columns, file name."""
        return dict(self.leaf.get("metadata", {}))

    def load(self) -> Any:
        """The value, read anew at each call. StorageError when the data is gone, IntegrityError when it is damaged."""
        return self._load()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and self.leaf == other.leaf

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        notes = "".join(f" {name}={value}" for name, value in self.metadata.items())
        return f"<Ref {self.type}{notes} {self.size} bytes {self.digest[:19]}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"{self!r} has no {name!r}: {self._advice()}")

    def __getitem__(self, key: object) -> Any:
        raise TypeError(f"{self!r} cannot be indexed: {self._advice()}")

    def __len__(self) -> int:
        raise TypeError(f"{self!r} has no length: {self._advice()}")

    def __iter__(self) -> Any:
        raise TypeError(f"{self!r} cannot be iterated: {self._advice()}")

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} is neither true nor false: {self._advice()}")

    def _advice(self) -> str:
        return (
            "it refers to data that the workflow has not loaded; use it inside a task, "
            "or call .load() if the workflow itself needs the value"
        )
