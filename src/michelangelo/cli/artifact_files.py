"""Artifacts as files: written whole beside their place and then moved there, so that a failure leaves nothing.

A directory is unpacked with the path checks of every archive; a table becomes CSV when the name ends so. It shows
nothing.
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from michelangelo import errors
from michelangelo.cli import formats
from michelangelo.cli.artifacts import Artifact
from michelangelo.cli.content import Content
from michelangelo.uniflow import archive

__all__ = ["write"]

_PIECE: Final = 1 << 20


def write(content: Content, found: Artifact, path: str, *, force: bool) -> str:
    """Write it to `path` (empty: the artifact's own name; `-`: standard output); where it is now.

    Raises SettingsError when the place is taken, StorageError, IntegrityError when the data is damaged, ApiError,
    CodecError.
    """
    head = formats.head_of(content, found)
    is_folder = found.codec == "directory" or len(found.files) > 1
    if path == "-":
        if is_folder:
            what = "a directory" if found.codec == "directory" else f"{len(found.files)} files"
            raise errors.SettingsError(f"{found.name} is {what}, which goes to a folder: give one with -o PATH")
        _copy(content, found, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return path
    path = path or _default_name(found, head)
    if os.path.isdir(path) and not is_folder:
        path = os.path.join(path, _default_name(found, head))
    _check_free(path, is_folder=is_folder, force=force)
    if is_folder:
        _replace_folder(path, lambda folder: _fill(content, found, folder))
    elif path.lower().endswith(".csv") and formats.kind_of(head) == "parquet":
        _replace(path, lambda file: _write_csv(content, found, file))
    else:
        _replace(path, lambda file: _copy(content, found, file))
    return path


def _check_free(path: str, *, is_folder: bool, force: bool) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise errors.SettingsError(f"{folder} is no folder: make it, or choose another place with -o")
    if not os.path.lexists(path):
        return
    if is_folder:
        raise errors.SettingsError(f"{path} exists already: remove it, or choose another place with -o")
    if not force:
        raise errors.SettingsError(
            f"{path} exists already: choose another place with -o, or write over it with --force"
        )


def _default_name(found: Artifact, head: bytes) -> str:
    """The file's own name, else the artifact's with what its format ends with."""
    own = os.path.basename(str(found.metadata.get("name") or ""))
    if found.codec in ("file", "directory") and own not in ("", ".", ".."):
        return own
    plain = "".join(char if char.isalnum() or char in "-_." else "-" for char in found.name).strip("-.")
    if len(found.files) > 1:
        return plain
    return plain + formats.EXTENSIONS.get(formats.kind_of(head) if found.digest else "json", ".bin")


def _copy(content: Content, found: Artifact, file: BinaryIO) -> None:
    if not found.digest:
        file.write(json.dumps(found.value, indent=2, ensure_ascii=False).encode() + b"\n")
        return
    with content.open_blob(found.digest) as source:
        shutil.copyfileobj(source, file, _PIECE)


def _write_csv(content: Content, found: Artifact, file: BinaryIO) -> None:
    parts = formats.read_table(content, found).to_batches(max_chunksize=10_000)
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer: Any = None
    for part in parts:
        if writer is None:
            writer = csv.DictWriter(text, part.schema.names)
            writer.writeheader()
        writer.writerows(part.to_pylist())
    text.flush()
    text.detach()


def _replace(path: str, fill: Callable[[BinaryIO], None]) -> None:
    """Fill a new file, and move it to its place."""
    partial = _beside(path)
    try:
        with open(partial, "xb") as file:
            fill(file)
        os.replace(partial, path)
    except OSError as e:
        raise errors.SettingsError(f"cannot write {path}: {e.strerror or e}") from e
    finally:
        if os.path.lexists(partial):
            os.unlink(partial)


def _replace_folder(path: str, fill: Callable[[str], None]) -> None:
    """Fill a new folder, and move it to its place."""
    partial = _beside(path)
    try:
        fill(partial)
        os.rename(partial, path)
    except OSError as e:
        raise errors.SettingsError(f"cannot write {path}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(content: Content, found: Artifact, folder: str) -> None:
    if found.codec == "directory":
        with content.open_blob(found.digest) as source:
            archive.unpack(source, folder)
            while source.read(_PIECE):
                pass  # to the end, where the digest is checked
        return
    for name, digest in found.files.items():
        place = os.path.join(folder, name)
        if not os.path.realpath(place).startswith(os.path.realpath(folder) + os.sep):
            raise errors.SettingsError(f"{found.name} has a file {name!r}, which is outside of its folder")
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "xb") as file, content.open_blob(digest) as source:
            shutil.copyfileobj(source, file, _PIECE)


def _beside(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(folder, f".{name}.part-{secrets.token_hex(4)}")
