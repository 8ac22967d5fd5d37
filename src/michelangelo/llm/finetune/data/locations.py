"""Paths, patterns, folders and URLs → files in a fixed order, and what is in them by their names.

Files are found through fsspec. `s3://` without s3fs goes through Arrow's own client, which takes what is special
about a server in the URL (`s3://bucket/key?endpoint_override=host:port&scheme=http&region=…`). Nothing is read here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fsspec.core import url_to_fs

from michelangelo import errors
from michelangelo.llm.finetune.config import SourceConfig

__all__ = ["File", "describe_formats", "files_of", "filesystem", "format_of", "hf_folder"]

_COMPRESSIONS: Final = (".gz", ".zst", ".bz2", ".xz")
_FORMATS: Final = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}
_PACKAGES: Final = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source."""

    filesystem: Any
    """An fsspec file system."""
    path: str
    """As that file system calls it."""
    num_bytes: int
    is_local: bool

    @property
    def compression(self) -> str:
        """`.gz` and the like; empty: none."""
        return next((ending for ending in _COMPRESSIONS if self.path.lower().endswith(ending)), "")


def describe_formats() -> str:
    """For messages: the names of files that are understood."""
    return f"{', '.join('*' + ending for ending in _FORMATS)}, also with {', '.join(_COMPRESSIONS)}"


def format_of(path: str) -> str:
    """`jsonl`, `parquet` or `text` by the name of a file; empty: it says nothing."""
    name = path.lower()
    for ending in _COMPRESSIONS:
        name = name.removesuffix(ending)
    return next((form for ending, form in _FORMATS.items() if name.endswith(ending)), "")


def hf_folder(source: SourceConfig) -> bool:
    """Whether the path is a folder that `Dataset.save_to_disk` wrote."""
    if "://" in source.path or "*" in source.path:
        return False
    folder = Path(source.path)
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def files_of(source: SourceConfig) -> list[File]:
    """The files of a source by name, empty ones left out. Raises DatasetError if there is none, or if it cannot be
    looked up."""
    system, path = filesystem(source.path)
    try:
        found = _find(system, path, source)
    except (OSError, ValueError, ImportError) as e:
        raise errors.DatasetError(f"{source.path} cannot be looked up: {e}") from e
    if not found:
        raise errors.DatasetError(f"{source.path}: there is no such file; {_advice(source)}")
    local = "file" in _protocols(system)
    files = [File(system, name, size, local) for name, size in sorted(found) if size]
    if not files:
        raise errors.DatasetError(f"{source.path}: {len(found)} files, and all of them are empty; put rows into them")
    return files


def filesystem(path: str) -> tuple[Any, str]:
    """An fsspec file system for a path or URL, and the path in it. Raises DatasetError that names what is missing."""
    protocol = path.split("://", 1)[0] if "://" in path else ""
    try:
        if protocol in ("s3", "s3a") and ("?" in path or importlib.util.find_spec("s3fs") is None):
            return _arrow_s3(path)
        system, inner = url_to_fs(path)
    except ImportError as e:
        package = _PACKAGES.get(protocol, "")
        what = f"pip install {package}" if package else str(e)
        raise errors.DatasetError(f"{path}: reading from {protocol}:// needs a package that is not here: {what}") from e
    except (OSError, ValueError) as e:
        raise errors.DatasetError(f"{path} cannot be reached: {e}") from e
    return system, str(inner)


def _arrow_s3(url: str) -> tuple[Any, str]:
    import pyarrow.fs
    from fsspec.implementations.arrow import ArrowFSWrapper

    pattern, _, query = url.replace("s3a://", "s3://", 1).partition("?")
    # A pattern is none of Arrow's business, and its ? would begin the query.
    bucket, _, key = pattern.removeprefix("s3://").partition("/")
    arrow, _ = pyarrow.fs.FileSystem.from_uri(f"s3://{bucket}" + (f"?{query}" if query else ""))
    return ArrowFSWrapper(arrow), f"{bucket}/{key}".rstrip("/")


def _find(system: Any, path: str, source: SourceConfig) -> list[tuple[str, int]]:
    """Names and sizes; in a folder those whose names end in a known way (or in the way of the format asked for)."""
    if "*" in path or "[" in path:
        details = system.glob(path, detail=True)
        return [
            (name, int(info["size"] or 0))
            for name, info in details.items()
            if info["type"] == "file" and not name.rsplit("/", 1)[-1].startswith(".")
        ]
    if system.isfile(path):
        return [(path, int(system.info(path)["size"] or 0))]
    details = system.find(path, detail=True)
    wanted = () if source.format in ("auto", "ray") else (source.format,)
    return [
        (name, int(info["size"] or 0))
        for name, info in details.items()
        if _is_data(name.removeprefix(path), format_of(name), wanted)
    ]


def _is_data(name: str, form: str, wanted: Sequence[str]) -> bool:
    parts = name.strip("/").split("/")
    return bool(form) and (not wanted or form in wanted) and not any(part.startswith((".", "_")) for part in parts)


def _advice(source: SourceConfig) -> str:
    if "://" not in source.path and "*" not in source.path:
        return (
            f"check data.train[].path, a folder must hold files of known names ({describe_formats()}); "
            "for a data set of the Hugging Face Hub say format: hf"
        )
    return "check data.train[].path"


def _protocols(system: Any) -> tuple[str, ...]:
    protocol = system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
