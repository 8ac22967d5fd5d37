"""The source that a workflow needs, as one blob: its file and the modules of its own project that these import.

What is imported is read from the syntax, without running anything: files under the root of the workflow's imports.
Installed packages stay out (they belong to the environment), and so do data files, unless `.mainclude` names them
(uniflow/source_patterns.py).
"""

from __future__ import annotations

import ast
import io
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from michelangelo.blobs.blob_store import Blob, BlobStore
from michelangelo.errors import SourceError
from michelangelo.uniflow import archive, references, source, source_patterns, syntax

__all__ = ["MAX_SOURCE_BYTES", "GitState", "SourceTree", "find_source", "git_state", "pack_source", "unpack_source"]

MAX_SOURCE_BYTES: Final = 64 << 20
_MAX_FILES: Final = 10_000
_NAMED_FILES: Final = 5
_GIT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class SourceTree:
    """`files` and `main` are relative to `root`, with `/`; `main` is imported as `module`."""

    root: str
    main: str
    module: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GitState:
    """Where the source stands in its repository. `clean`: every packed file is as committed."""

    commit: str
    branch: str
    clean: bool


def find_source(path: str, module: str = "") -> SourceTree:
    """The file `path`, what it imports of its project, transitively, and the data files that are to go along.
    SourceError with file and line when one of them does not parse."""
    path = os.path.abspath(path)
    module = module or references.module_of_file(path)
    root = source.import_root(path, module)
    main = _relative(path, root)
    patterns = source_patterns.SourcePatterns(root)
    found: set[str] = set()
    pending = [main, *_package_files(root, module.rpartition(".")[0])]
    while pending:
        name = pending.pop()
        if name not in found and (name == main or not patterns.is_ignored(name)):
            found.add(name)
            pending += _imported_files(root, name)
    return SourceTree(root, main, module, tuple(sorted(found.union(patterns.included()))))


def pack_source(tree: SourceTree, blobs: BlobStore) -> Blob:
    """Store the files; equal files give the same digest. SourceError over MAX_SOURCE_BYTES or the bound of files."""
    _check_size(tree)
    stream = io.BytesIO()
    archive.pack_files(tree.root, tree.files, stream)
    return blobs.put(stream.getvalue())


def _check_size(tree: SourceTree) -> None:
    sizes = {name: os.lstat(os.path.join(tree.root, name)).st_size for name in tree.files}
    size = sum(sizes.values())
    if size <= MAX_SOURCE_BYTES and len(sizes) <= _MAX_FILES:
        return
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:_NAMED_FILES]
    shown = ", ".join(f"{name} ({_mib(sizes[name])})" for name in largest)
    raise SourceError(
        f"the source of {tree.main} has {len(sizes)} files and {_mib(size)}, and at most {_MAX_FILES} files and "
        f"{_mib(MAX_SOURCE_BYTES)} can be packed; the largest are {shown}. Name what the code does not need in "
        f"{os.path.join(tree.root, '.maignore')}, and give large data as an argument (uniflow.File) or by a URL"
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def unpack_source(digest: str, blobs: BlobStore, folder: str) -> None:
    """Unpack into `folder`, which must be new or empty. CodecError when the archive is damaged or over the bounds."""
    with blobs.open(digest) as stream:
        archive.unpack(stream, folder, max_bytes=MAX_SOURCE_BYTES, max_files=_MAX_FILES)


def git_state(tree: SourceTree) -> GitState | None:
    """Commit and branch of the repository that holds the source; None without git, repository or commit."""
    commit = _git(tree.root, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(tree.root, "status", "--porcelain", "--untracked-files=all", "--ignored=matching", "--", *tree.files)
    return GitState(commit, _git(tree.root, "symbolic-ref", "--short", "-q", "HEAD") or "", changes == "")


def _imported_files(root: str, name: str) -> Iterator[str]:
    _, tree = syntax.parse(os.path.join(root, name))
    package = os.path.dirname(name).replace("/", ".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _package_files(root, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            if base is not None:
                yield from _package_files(root, base)
                for alias in node.names:
                    yield from _package_files(root, f"{base}.{alias.name}" if base else alias.name)


def _base(node: ast.ImportFrom, package: str) -> str | None:
    """The module that `from … import` starts at; None when it would leave the root."""
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    if node.level > len(parts):
        return None
    parts = parts[: len(parts) - (node.level - 1)]
    return ".".join([*parts, node.module] if node.module else parts)


def _package_files(root: str, module: str) -> Iterator[str]:
    """The files of a module and of the packages around it, as far as they are under `root`."""
    parts = module.split(".") if module else []
    for length in range(1, len(parts) + 1):
        stem = "/".join(parts[:length])
        for name in (f"{stem}/__init__.py", f"{stem}.py"):
            if os.path.isfile(os.path.join(root, name)):
                yield name
                break


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _git(folder: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
