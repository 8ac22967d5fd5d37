"""IO classes: codecs that write files of their own, entered in `default_io` by the type that they carry.

    class FigureIO(IO[Figure]):
        def write(self, url, value):
            value.savefig(url)

        def read(self, url, metadata):
            return load_figure(url)

    default_io.set(Figure, FigureIO)

`url` is a path in a folder of the attempt's own: what is there after `write` (a file, or a folder of them) becomes
blobs, and is there again for `read`, checked. What `write` returns travels as `metadata`. An entry of `default_io` goes
before the platform's own codec of the type, so every process of a run has to make it: at the top of a module.
"""

from __future__ import annotations

import abc
import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from michelangelo.errors import CodecError
from michelangelo.uniflow import content, references, scratch
from michelangelo.uniflow.codecs import registry
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__ = ["IO", "BytesIO", "IORegistry", "LazyIO", "default_io", "io_registry"]

_T = TypeVar("_T")

_NAME: Final = "value"


class IO(abc.ABC, Generic[_T]):
    """How values of one type are written to a place and read from it."""

    @abc.abstractmethod
    def write(self, url: str, value: _T) -> Any:
        """Write `value` to the path `url`, as a file or as a folder; what it returns is given to `read`."""

    @abc.abstractmethod
    def read(self, url: str, metadata: Any) -> _T:
        """The value that was written to what is at the path `url` now."""


LazyIO = IO[Any] | Callable[[], IO[Any]]
"""An IO, or what makes one when it is first needed: its class, or a function."""


class BytesIO(IO[io.BytesIO]):
    """Carries `io.BytesIO`."""

    def write(self, url: str, value: io.BytesIO) -> None:
        with open(url, "wb") as file:
            file.write(value.getbuffer())

    def read(self, url: str, metadata: Any) -> io.BytesIO:
        with open(url, "rb") as file:
            return io.BytesIO(file.read())


class IORegistry:
    """Which IO carries which type; a type without one has that of its nearest base."""

    def __init__(self, registry: Mapping[type, LazyIO] | None = None) -> None:
        self._registry: dict[type, LazyIO] = dict(registry or {})

    def set(self, t: type, io: LazyIO, force: bool = False) -> IORegistry:
        """Enter an IO. KeyError when the type has one already, but with `force`."""
        if t in self._registry and not force:
            raise KeyError(f"{t!r} has an IO already ({self._registry[t]!r}); give force=True to replace it by {io!r}")
        self._registry[t] = io
        return self

    def update(self, io_dict: Mapping[type, LazyIO], force: bool = False) -> IORegistry:
        """Enter several, or none: KeyError when a type has one already, but with `force`."""
        for t in io_dict:
            if t in self._registry and not force:
                raise KeyError(f"{t!r} has an IO already ({self._registry[t]!r}); give force=True to replace it")
        self._registry.update(io_dict)
        return self

    def copy(self) -> IORegistry:
        return IORegistry(self._registry)

    def __getitem__(self, t: type) -> IO[Any]:
        """The IO of a type or of its nearest base. KeyError when there is none."""
        for base in t.__mro__:
            if base in self._registry:
                found = self._registry[base]
                if not isinstance(found, IO):
                    found = found()
                    if not isinstance(found, IO):
                        raise TypeError(f"the factory of the IO of {base!r} gave {found!r}, which is no IO")
                    self._registry[base] = found
                return found
        raise KeyError(f"{t!r} has no IO; enter one with set()")

    def __setitem__(self, t: type, io: LazyIO) -> None:
        self.set(t, io)

    def __contains__(self, t: object) -> bool:
        return isinstance(t, type) and any(base in self._registry for base in t.__mro__)

    def __iter__(self) -> Iterator[type]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)

    def __repr__(self) -> str:
        return f"IORegistry({self._registry!r})"


default_io: Final = IORegistry({io.BytesIO: BytesIO})
"""The registry that the codecs look into."""


def io_registry() -> IORegistry:
    """`default_io`, under its older name."""
    return default_io


def _encode(value: Any, encoder: Encoder) -> dict[str, Any]:
    kind = type(value)
    handler = default_io[kind]
    name = f"{type(handler).__module__}.{type(handler).__qualname__}"
    with tempfile.TemporaryDirectory(prefix="uniflow-", dir=scratch.folder()) as folder:
        place = os.path.join(folder, _NAME)
        metadata = handler.write(place, value)
        files = {}
        for path in sorted(_files(folder)):
            with open(path, "rb") as file:
                if os.path.getsize(path) <= content.SMALL_BYTES:
                    files[os.path.relpath(path, folder)] = encoder.blob(file.read())
                    continue
            files[os.path.relpath(path, folder)] = encoder.file(path)
        if not files:
            raise Unencodable(f"{name} has written nothing to the url that it was given")
    blobs = [found["blob"] for found in files.values()]
    return {
        "blobs": sorted(set(blobs)),
        "files": {path: found["blob"] for path, found in files.items()},
        "size": sum(found["size"] for found in files.values()),
        "type": references.reference(kind),
        "io": encoder.child(metadata),
        "metadata": {"io": name, "files": len(files)},
    }


def _files(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(place, name)


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    kind = references.resolve(leaf["type"])
    if not isinstance(kind, type) or kind not in default_io:
        raise CodecError(
            f"{leaf['type']} was written by {leaf['metadata']['io']}, and has no IO here; "
            "enter it in default_io at the top of the module that defines the tasks"
        )
    # Not removed with the block: a value that reads its files late may still need them.
    kept = scratch.Folder()
    folder = kept.path
    for path, digest in leaf["files"].items():
        target = os.path.normpath(os.path.join(folder, path))
        if not target.startswith(folder + os.sep):
            raise CodecError(f"file {path!r} of a {leaf['type']} would leave its folder; refused")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        content.copy(decoder.blobs, digest, target)
    value = default_io[kind].read(os.path.join(folder, _NAME), decoder.whole(leaf["io"]))
    with contextlib.suppress(AttributeError, TypeError):  # slots, builtins: they had to read it all already
        object.__setattr__(value, "_uniflow_folder", kept)
    return value


def _by_type(kind: type) -> registry.Codec | None:
    return _CODEC if kind in default_io else None


_CODEC: Final = registry.Codec("io", _encode, _decode, is_data=True)
registry.install_first(_by_type, _CODEC)
