"""Files of rows as numbered streams that can start anywhere, and what tells one file from another of the same name.

A line, a row of a Parquet file or of a Hugging Face data set becomes an InputRow, also when it cannot be used: then it
says why. How lines are read is `finetune.data.shards`'s business. What a row means is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import orjson

from michelangelo import errors
from michelangelo.llm.finetune.config import SourceConfig
from michelangelo.llm.finetune.data import locations, shards
from michelangelo.llm.finetune.data.rows import Position
from michelangelo.llm.scorer.config import InputConfig

__all__ = ["Form", "InputFile", "InputRow", "Stream", "digest_of", "files_of", "open_stream", "stamp_of"]

Form: TypeAlias = Literal["lines", "parquet", "hf"]
_CHUNK_ROWS: Final = 256
_FOOTER_BYTES: Final = 8
_STAMPS: Final = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
_READ_ERRORS: Final = (OSError, ValueError, KeyError, ImportError, RuntimeError)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file, or one Hugging Face data set."""

    path: str
    """As its file system calls it; `url` opens it."""
    url: str
    form: Form
    num_bytes: int
    stamp: str
    """What the file system says of the state of the file; equal: it was not written meanwhile."""
    split: str = ""


@dataclass(frozen=True, slots=True)
class InputRow:
    """One row. Without `fields`, `error` says why there are none."""

    place: str
    """`file:line`, from 1."""
    digest: bytes
    """blake2b of what is stored, 8 bytes."""
    fields: Mapping[str, Any] | None
    error: str = ""


class Stream(Protocol):
    """Rows in a fixed order."""

    def read(self, start: Position = (0, 0)) -> Iterator[tuple[InputRow, Position]]:
        """The rows from a position on, each with the position after it. Raises DatasetError."""
        ...

    @property
    def num_rows(self) -> int | None:
        """None: only reading tells."""
        ...

    @property
    def identity(self) -> str:
        """Of the contents, without reading them; empty: only reading tells."""
        ...


def files_of(config: InputConfig) -> list[InputFile]:
    """In the order of the paths, and by name within each. Raises DatasetError if there is none, all faults at once."""
    found: list[InputFile] = []
    wrong: list[str] = []
    for path in config.path:
        try:
            found += _files(path, config)
        except errors.DatasetError as e:
            wrong.append(e.message)
    if not config.path:
        wrong.append("input.path: no file is named; give one, such as prompts.jsonl")
    if wrong:
        raise errors.DatasetError("\n".join(wrong))
    return found


def open_stream(file: InputFile) -> Stream:
    """Raises DatasetError."""
    if file.form == "hf":
        return _HfStream(file)
    system, _ = locations.filesystem(file.url)
    place = locations.File(system, file.path, file.num_bytes, _is_local(system))
    return _ParquetStream(place) if file.form == "parquet" else _LineStream(place)


def digest_of(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def stamp_of(file: InputFile) -> tuple[int, str]:
    """Size and stamp as they are now. Raises DatasetError if the file is gone."""
    if file.form == "hf":
        return file.num_bytes, file.stamp
    system, path = locations.filesystem(file.url)
    try:
        system.invalidate_cache()
        info = system.info(path)
    except _READ_ERRORS as e:
        raise errors.DatasetError(f"{file.path} is not there any more: {e}") from e
    return int(info.get("size") or 0), _stamp(info)


def _files(path: str, config: InputConfig) -> list[InputFile]:
    source = SourceConfig(path=path, split=config.split)
    if config.format == "hf" or (config.format == "auto" and locations.hf_folder(source)):
        made = InputFile(path, path, "hf", 0, "", config.split)
        return [InputFile(path, path, "hf", 0, _HfStream(made).identity, config.split)]
    system, inner = locations.filesystem(path)
    try:
        names = _names(system, inner, config)
    except _READ_ERRORS as e:
        raise errors.DatasetError(f"{path} cannot be looked up: {e}") from e
    if not names:
        raise errors.DatasetError(
            f"{path}: there is no such file; a folder must hold files of known names ({locations.describe_formats()})"
        )
    prefix = "" if _is_local(system) else f"{path.split('://', 1)[0]}://" if "://" in path else ""
    query = f"?{path.partition('?')[2]}" if "://" in path and "?" in path else ""
    found = []
    for name, info in sorted(names.items()):
        form = _form(name, config)
        url = f"{prefix}{name}{query}" if prefix else name
        if info.get("size"):
            found.append(InputFile(name, url, form, int(info["size"]), _stamp(info)))
    if not found:
        raise errors.DatasetError(f"{path}: there is nothing in it; put rows into it")
    return found


def _names(system: Any, path: str, config: InputConfig) -> dict[str, Mapping[str, Any]]:
    if "*" in path or "[" in path:
        found = system.glob(path, detail=True)
        return {name: info for name, info in found.items() if info["type"] == "file"}
    if system.isfile(path):
        return {path: system.info(path)}
    found = system.find(path, detail=True)
    return {name: info for name, info in found.items() if _is_data(name.removeprefix(path), config)}


def _is_data(name: str, config: InputConfig) -> bool:
    hidden = any(part.startswith((".", "_")) for part in name.strip("/").split("/"))
    form = locations.format_of(name)
    wanted = {"parquet": ("parquet",), "auto": ("jsonl", "parquet")}.get(config.format, ("jsonl",))
    return not hidden and form in wanted


def _form(name: str, config: InputConfig) -> Form:
    if config.format in ("jsonl", "openai"):
        return "lines"
    if config.format == "parquet":
        return "parquet"
    form = locations.format_of(name)
    if form not in ("jsonl", "parquet"):
        raise errors.DatasetError(
            f"{name}: its name does not say what is in it (*.jsonl, *.parquet); say input.format: jsonl or parquet"
        )
    return "lines" if form == "jsonl" else "parquet"


def _is_local(system: Any) -> bool:
    protocol = system.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else tuple(protocol))


def _stamp(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in _STAMPS if info.get(name)), "")


class _LineStream:
    """JSON lines, also packed; empty lines are no rows."""

    num_rows = None
    identity = ""

    def __init__(self, place: locations.File) -> None:
        # As text an empty line is skipped and nothing else looked at.
        self._shard = shards.LineShard(place, "text")

    def read(self, start: Position = (0, 0)) -> Iterator[tuple[InputRow, Position]]:
        for row, position in self._shard.read(start):
            place = f"{row.file}:{row.line}"
            if row.form == "damaged" or isinstance(row.data, Mapping):
                reason = str(dict(row.data)["reason"]) if isinstance(row.data, Mapping) else ""
                yield InputRow(place, digest_of(reason.encode()), None, reason), position
            else:
                yield _parsed(row.data, place), position


def _parsed(data: bytes, place: str) -> InputRow:
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        return InputRow(place, digest_of(data), None, f"malformed JSON: {e}")
    if not isinstance(fields, dict):
        return InputRow(place, digest_of(data), None, "the line is no JSON object")
    return InputRow(place, digest_of(data), fields)


class _ParquetStream:
    def __init__(self, place: locations.File) -> None:
        self._place = place

    def read(self, start: Position = (0, 0)) -> Iterator[tuple[InputRow, Position]]:
        import pyarrow.parquet

        number = start[1]
        try:
            with self._place.filesystem.open(self._place.path, "rb") as stream:
                for fields in _from(pyarrow.parquet.ParquetFile(stream), number):
                    number += 1
                    yield _of_table(fields, f"{self._place.path}:{number}"), (number, number)
        except _READ_ERRORS as e:
            raise errors.DatasetError(f"{self._place.path} cannot be read after row {number}: {e}") from e

    @property
    def num_rows(self) -> int:
        return self._footer()[0]

    @property
    def identity(self) -> str:
        return self._footer()[1]

    def _footer(self) -> tuple[int, str]:
        """Rows, and a digest of the footer: it has the offsets, sizes and statistics of all columns."""
        import pyarrow.parquet

        try:
            with self._place.filesystem.open(self._place.path, "rb") as stream:
                rows = int(pyarrow.parquet.ParquetFile(stream).metadata.num_rows)
                stream.seek(-_FOOTER_BYTES, 2)
                size = int.from_bytes(stream.read(4), "little")
                stream.seek(-_FOOTER_BYTES - size, 2)
                return rows, hashlib.blake2b(stream.read(size), digest_size=16).hexdigest()
        except _READ_ERRORS as e:
            raise errors.DatasetError(f"{self._place.path} is no Parquet file that can be read: {e}") from e


def _from(file: Any, skipped: int) -> Iterator[dict[str, Any]]:
    group = 0
    while group < file.num_row_groups and skipped >= file.metadata.row_group(group).num_rows:
        skipped -= file.metadata.row_group(group).num_rows
        group += 1
    for batch in file.iter_batches(batch_size=_CHUNK_ROWS, row_groups=list(range(group, file.num_row_groups))):
        if skipped >= batch.num_rows:
            skipped -= batch.num_rows
            continue
        yield from batch.slice(skipped).to_pylist()
        skipped = 0


class _HfStream:
    """A folder of `Dataset.save_to_disk`, or a data set of the Hub that can be had; mapped into memory."""

    def __init__(self, file: InputFile) -> None:
        import datasets

        self._name = f"{file.path}[{file.split}]"
        try:
            if locations.hf_folder(SourceConfig(path=file.path)):
                loaded = datasets.load_from_disk(file.path)
            else:
                loaded = datasets.load_dataset(file.path, split=file.split)
        except (*_READ_ERRORS, datasets.exceptions.DatasetsError) as e:
            raise errors.DatasetError(f"the data set {self._name} cannot be loaded: {e}; is the path right?") from e
        if isinstance(loaded, datasets.DatasetDict):
            if file.split not in loaded:
                raise errors.DatasetError(f"{file.path} has no split {file.split}; it has {', '.join(loaded)}")
            loaded = loaded[file.split]
        self._dataset: Any = loaded

    def read(self, start: Position = (0, 0)) -> Iterator[tuple[InputRow, Position]]:
        number = start[1]
        for first in range(number, len(self._dataset), _CHUNK_ROWS):
            columns = self._dataset[first : first + _CHUNK_ROWS]
            for values in zip(*columns.values(), strict=True):
                number += 1
                fields = dict(zip(columns, values, strict=True))
                yield _of_table(fields, f"{self._name}:{number}"), (number, number)

    @property
    def num_rows(self) -> int:
        return len(self._dataset)

    @property
    def identity(self) -> str:
        return str(self._dataset._fingerprint)


def _of_table(fields: dict[str, Any], place: str) -> InputRow:
    data = orjson.dumps(fields, default=repr, option=orjson.OPT_NON_STR_KEYS)
    return InputRow(place, digest_of(data), fields)
