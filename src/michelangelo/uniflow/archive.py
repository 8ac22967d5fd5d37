"""Folders as one stream of bytes, and back: an uncompressed tar that depends on names, contents and the x bit only.

Packing takes regular files, folders and symbolic links that stay inside; unpacking trusts nothing: an entry that would
land outside of the target, a device, or more than the size bound refuses the whole archive.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, Final

from michelangelo.errors import CodecError, StorageError

__all__ = ["MAX_BYTES", "MAX_FILES", "pack", "pack_files", "unpack"]

MAX_BYTES: Final = 1 << 40
MAX_FILES: Final = 1_000_000


def pack(folder: str, target: BinaryIO) -> None:
    """Write the content of `folder`. CodecError for what is neither file nor folder nor a link inside."""
    pack_files(folder, _walk(folder), target)


def pack_files(root: str, names: Iterable[str], target: BinaryIO) -> None:
    """Write these paths (relative to `root`, with `/`), in sorted order."""
    try:
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
            for name in sorted(names):
                _add(tar, root, name)
    except OSError as error:
        raise StorageError(f"cannot pack {root}: {error}") from error


def unpack(source: BinaryIO, target: str, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
    """Unpack into the folder `target`, which must not exist or be empty. It appears whole or not at all.

    CodecError when the archive is damaged, has an entry that would leave the folder, or is over a bound.
    """
    if os.path.lexists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise CodecError(f"cannot unpack into {target}: it exists already and is not an empty folder")
    partial = tempfile.mkdtemp(prefix=".unpack-", dir=os.path.dirname(os.path.abspath(target)))
    try:
        _unpack(source, partial, max_bytes, max_files)
        os.chmod(partial, 0o755)
        os.replace(partial, target)
    except OSError as error:
        raise StorageError(f"cannot unpack into {target}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack(source: BinaryIO, target: str, max_bytes: int, max_files: int) -> None:
    size = 0
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=1 << 20) as tar:
            for number, member in enumerate(tar, 1):
                size += member.size
                if size > max_bytes or number > max_files:
                    raise CodecError(f"archive is over the bound of {max_bytes} bytes and {max_files} files")
                _extract(tar, member, target)
    except (tarfile.TarError, EOFError) as error:
        raise CodecError(f"archive is damaged: {error}") from error


def _walk(folder: str) -> list[str]:
    names = []
    for place, folders, files in os.walk(folder):
        for name in folders + files:
            names.append(os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/"))
    return names


def _add(tar: tarfile.TarFile, root: str, name: str) -> None:
    path = os.path.join(root, name)
    info = tarfile.TarInfo(name)
    info.mtime = 0
    if os.path.islink(path):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
        _check_link(name, info.linkname)
        tar.addfile(info)
    elif os.path.isdir(path):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    elif os.path.isfile(path):
        status = os.stat(path)
        info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
        with open(path, "rb") as file:
            tar.addfile(info, file)
    else:
        raise CodecError(f"{path} is neither a file nor a folder; a directory that goes between tasks holds only these")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    """Links were checked to stay inside, and none is followed: each parent must be a real folder."""
    parts = _checked(member.name)
    parent = target
    for part in parts[:-1]:
        parent = os.path.join(parent, part)
        if os.path.islink(parent) or (os.path.lexists(parent) and not os.path.isdir(parent)):
            raise CodecError(f"archive entry {member.name!r} goes through a link or a file; refused")
        os.makedirs(parent, mode=0o755, exist_ok=True)
    path = os.path.join(parent, parts[-1])
    if os.path.lexists(path) and not (member.isdir() and os.path.isdir(path) and not os.path.islink(path)):
        raise CodecError(f"archive has the entry {member.name!r} twice; refused")
    if member.isdir():
        os.makedirs(path, mode=0o755, exist_ok=True)
    elif member.issym():
        _check_link(member.name, member.linkname)
        os.symlink(member.linkname, path)
    elif member.isreg():
        content = tar.extractfile(member)
        assert content is not None
        with content, open(path, "xb") as file:
            while chunk := content.read(io.DEFAULT_BUFFER_SIZE * 16):
                file.write(chunk)
        os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)
    else:
        raise CodecError(f"archive entry {member.name!r} is no file, folder or link; refused")


def _checked(name: str) -> list[str]:
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise CodecError(f"archive entry {name!r} would leave its folder; refused")
    return parts


def _check_link(name: str, link: str) -> None:
    """A link must stay inside, read as text from its own folder."""
    place = os.path.normpath(os.path.join(os.path.dirname(name), link))
    if os.path.isabs(link) or place == ".." or place.startswith("../"):
        raise CodecError(f"{name!r} links to {link!r}, outside of its directory; copy the file in")
