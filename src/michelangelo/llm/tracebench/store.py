"""The trace store: a folder with a folder per name and a numbered one per recording. What is in it never changes.

A recording is written beside its place and renamed into it, so that it is there whole or not at all, also when two are
stored at once. References: NAME (its latest), NAME@N, eight or more characters of a digest, or a folder.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from michelangelo import errors
from michelangelo.llm.tracebench import recording
from michelangelo.llm.tracebench.recording import Header, Recording

__all__ = ["check_name", "folder_of", "headers", "read", "save"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")


def check_name(name: str) -> None:
    """Raises SuiteError for what is no name of a recording."""
    if not _NAME.fullmatch(name):
        raise errors.SuiteError(f"{name!r} is no name for a recording: letters, digits, '.', '_' and '-', 100 at most")


def save(store: Path, made: Recording) -> Header:
    """Store it as the next version of its name; the header with version and digest. Raises SuiteError."""
    check_name(made.header.name)
    home = store / made.header.name
    try:
        home.mkdir(parents=True, exist_ok=True)
        while True:
            version = max(_versions(home), default=0) + 1
            numbered = replace(made, header=replace(made.header, version=version))
            if _placed(home, f"{version:06d}", numbered):
                return recording.read_header(home / f"{version:06d}")
    except OSError as e:
        raise errors.SuiteError(f"{home} cannot be written: {e.strerror or e}") from e


def read(store: Path, reference: str) -> Recording:
    """The recording that is meant. Raises SuiteError."""
    return recording.read(folder_of(store, reference))


def folder_of(store: Path, reference: str) -> Path:
    """Where it is. Raises SuiteError that says which there are."""
    name, at, number = reference.partition("@")
    if _NAME.fullmatch(name) and (store / name).is_dir():
        versions = _versions(store / name)
        if not at and versions:
            return store / name / f"{max(versions):06d}"
        if number.isdigit() and int(number) in versions:
            return store / name / f"{int(number):06d}"
        known = ", ".join(f"{name}@{version}" for version in versions[-5:]) or "none"
        raise errors.SuiteError(f"there is no recording {reference} in {store}; the latest of {name}: {known}")
    if _DIGEST.fullmatch(reference):
        found = [header for header in headers(store) if header.digest.startswith(reference)]
        if len(found) == 1:
            return store / found[0].name / f"{found[0].version:06d}"
        if found:
            raise errors.SuiteError(f"{reference} begins {len(found)} digests: {', '.join(h.reference for h in found)}")
    if (Path(reference) / "recording.json").is_file():
        return Path(reference)
    known = ", ".join(sorted({header.name for header in headers(store)})) or "none"
    raise errors.SuiteError(f"there is no recording {reference} in {store}; names there: {known}")


def headers(store: Path) -> Iterator[Header]:
    """Of all recordings, by name and version. Raises SuiteError for one that is damaged."""
    if not store.is_dir():
        return
    for home in sorted(path for path in store.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()):
        for version in _versions(home):
            yield recording.read_header(home / f"{version:06d}")


def _versions(home: Path) -> list[int]:
    return sorted(int(path.name) for path in home.iterdir() if re.fullmatch(r"\d{6,}", path.name) and path.is_dir())


def _placed(home: Path, name: str, made: Recording) -> bool:
    """False: somebody else took this number."""
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
    try:
        for file, data in recording.files_of(made).items():
            with (beside / file).open("xb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            (beside / file).chmod(0o444)
        beside.chmod(0o755)
        try:
            beside.rename(home / name)
        except OSError:
            # A folder with files in it is never replaced by a rename.
            if (home / name).exists():
                return False
            raise
        return True
    finally:
        shutil.rmtree(beside, ignore_errors=True)
