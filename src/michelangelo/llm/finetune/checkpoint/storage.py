"""Files of checkpoints in a local folder or behind an fsspec URL: written durably, listed, removed. One attempt each;
`retrying` tries again. It knows no checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, cast

from michelangelo import errors
from michelangelo.llm.finetune.data import locations

__all__ = ["Storage", "Written", "digest_of"]

_BLOCK: Final = 8 * 2**20
"""Bytes that are read at once for a digest."""


@dataclass(frozen=True, slots=True)
class Written:
    """Size in bytes and SHA-256, in hex, of a file."""

    num_bytes: int
    sha256: str


class Storage:
    """Names are relative, with one folder at most: `step-00000010-3f2a91c0/manifest.json`. Raises OSError."""

    def __init__(self, folder: str) -> None:
        try:
            self._system, self._root = locations.filesystem(folder)
        except errors.DatasetError as e:
            raise errors.CheckpointError(f"checkpoint.folder {e.message}") from e
        protocols = self._system.protocol
        self.is_local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)
        self.folder = self._root if self.is_local else folder.rstrip("/")

    def address(self, name: str) -> str:
        """For people: where a file or folder is. What a URL says of its server (`?…`) stays at its end."""
        place, mark, query = self.folder.partition("?") if not self.is_local else (self.folder, "", "")
        return f"{place.rstrip('/')}/{name}{mark}{query}"

    def make_folder(self, name: str) -> None:
        self._system.makedirs(self._path(name), exist_ok=True)

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> Written:
        """On return the bytes are on the disk, or accepted by the object store."""
        digest, size = hashlib.sha256(), 0
        with self._open_new(name) as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
            if self.is_local:
                file.flush()
                os.fsync(file.fileno())
        return Written(size, digest.hexdigest())

    def commit(self, name: str, data: bytes) -> None:
        """A file that is there with all its bytes or not at all, and whatever was written before is durable."""
        if not self.is_local:  # object stores show an object when all of it is there
            self._system.pipe_file(self._path(name), data)
            return
        path = self._path(name)
        self.write(f"{name}.unfinished", [data])
        _sync_folder(os.path.dirname(path))
        os.replace(f"{path}.unfinished", path)
        _sync_folder(os.path.dirname(path))
        _sync_folder(self._root)

    def read(self, name: str) -> bytes:
        return bytes(self._system.cat_file(self._path(name)))

    def open(self, name: str) -> BinaryIO:
        """To read from any position."""
        return cast(BinaryIO, self._system.open(self._path(name), "rb"))

    def size(self, name: str) -> int:
        """Bytes. Raises FileNotFoundError."""
        self._system.invalidate_cache()
        return int(self._system.info(self._path(name))["size"])

    def digest(self, name: str) -> str:
        """SHA-256 of the whole file, in hex."""
        with self.open(name) as file:
            return digest_of(file)

    def folders(self) -> Mapping[str, frozenset[str]]:
        """The names of files by folder. Empty where there is nothing yet."""
        self._system.invalidate_cache()
        try:
            folders = [entry for entry in self._system.ls(self._root, detail=True) if entry["type"] == "directory"]
        except FileNotFoundError:
            return {}
        return {_name(entry["name"]): self._files(entry["name"]) for entry in folders}

    def rename(self, name: str, new: str) -> None:
        """One file."""
        if self.is_local:
            os.replace(self._path(name), self._path(new))
        else:
            self._system.mv(self._path(name), self._path(new))

    def remove(self, folder: str, *, first: str) -> None:
        """A folder and all in it, the file `first` before the others; what is gone already is no error."""
        for names in ((first,), sorted(self._files(self._path(folder)))):
            for name in names:
                try:
                    self._system.rm_file(self._path(f"{folder}/{name}"))
                except FileNotFoundError:
                    continue
        try:
            self._system.rm(self._path(folder), recursive=True)
        except FileNotFoundError:
            pass

    def _files(self, path: str) -> frozenset[str]:
        try:
            return frozenset(_name(entry) for entry in self._system.ls(path, detail=False))
        except FileNotFoundError:
            return frozenset()

    def _open_new(self, name: str) -> Any:
        path = self._path(name)
        # fsspec's local files hide the descriptor that fsync needs.
        return open(path, "wb") if self.is_local else self._system.open(path, "wb")

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def digest_of(file: BinaryIO) -> str:
    """SHA-256, in hex, from here to the end."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _name(path: str) -> str:
    return PurePosixPath(path.rstrip("/")).name


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
