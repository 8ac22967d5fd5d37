"""One file or data set as a stream of raw rows that can start anywhere: lines, Parquet, Hugging Face, Ray Data.

A shard does not look into its rows: a malformed line is a row like any other. What makes the rest of a file unreadable
(damaged compression, a Parquet file that is none) is a DatasetError.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, Protocol

from michelangelo import errors
from michelangelo.llm.finetune.config import DataConfig, SourceConfig
from michelangelo.llm.finetune.data import locations
from michelangelo.llm.finetune.data.locations import File
from michelangelo.llm.finetune.data.rows import Position, Row

__all__ = [
    "MAX_LINE_BYTES",
    "HfShard",
    "HfStreamShard",
    "LineShard",
    "ParquetShard",
    "RayShard",
    "Shard",
    "columns_of",
    "shards_of",
]

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""A longer line is a damaged row: it would be held as a whole."""
_CHUNK_ROWS: Final = 256
_REMOTE_BYTES: Final = 4 * 1024 * 1024
_START: Final[Position] = (0, 0)
_DAMAGE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


class Shard(Protocol):
    """Rows in a fixed order."""

    name: str
    """For messages, and part of what a saved position belongs to."""
    num_bytes: int
    """About how much is stored; 0: not known."""

    def read(self, start: Position = _START) -> Iterator[tuple[Row, Position]]:
        """The rows from a position on, each with the position after it."""
        ...


def shards_of(source: SourceConfig, config: DataConfig, *, streaming: bool) -> list[Shard]:
    """Opens nothing but what is needed to know that it is there. Raises DatasetError."""
    if source.format == "ray":
        return [RayShard(source, config)]
    if source.format == "hf" or (source.format == "auto" and locations.hf_folder(source)):
        return [_hf_shard(source, config, streaming=streaming)]
    return [_file_shard(file, source, config) for file in locations.files_of(source)]


def _file_shard(file: File, source: SourceConfig, config: DataConfig) -> Shard:
    form = source.format if source.format != "auto" else locations.format_of(file.path)
    if form == "parquet":
        return ParquetShard(file, config)
    if form in ("jsonl", "text"):
        return LineShard(file, "json" if form == "jsonl" else "text")
    raise errors.DatasetError(
        f"{file.path}: its name does not say what is in it (known: {locations.describe_formats()}); "
        "say data.train[].format: jsonl, parquet or text"
    )


class LineShard:
    """JSON or text, one row per line; empty lines of text are no rows. `.gz`, `.bz2`, `.xz`, `.zst` are unpacked on
    the way, and then a position is reached by unpacking what is before it."""

    def __init__(self, file: File, form: Literal["json", "text"]) -> None:
        self.file = file
        self.form: Literal["json", "text"] = form
        self.name = file.path
        self.num_bytes = file.num_bytes

    def read(self, start: Position = _START) -> Iterator[tuple[Row, Position]]:
        offset, line = start
        try:
            with contextlib.closing(_open(self.file, 0 if self.file.compression else offset)) as stream:
                for _ in range(line if self.file.compression else 0):
                    _read_line(stream)
                while True:
                    data, size = _read_line(stream)
                    if not size:
                        return
                    offset += size
                    line += 1
                    if self.form == "json" or data is None or data.strip():
                        yield self.row(data, line), (offset, line)
        except _DAMAGE as e:
            raise errors.DatasetError(
                f"{self.name} cannot be read after line {line}: {e}; is the file damaged or cut off? Write it anew"
            ) from e

    def row(self, data: bytes | None, line: int) -> Row:
        """None: the line was too long."""
        if data is None:
            reason = f"a line of more than {MAX_LINE_BYTES // 2**20} MiB"
            return Row({"reason": reason}, "damaged", self.name, line)
        return Row(data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data, self.form, self.name, line)


def _read_line(stream: Any) -> tuple[bytes | None, int]:
    """A line without its end, or None for one that is too long, and how many bytes it takes; 0 at the end."""
    data = stream.readline(MAX_LINE_BYTES + 2)
    size = len(data)
    if size < MAX_LINE_BYTES + 2 or data.endswith(b"\n"):
        return data.rstrip(b"\r\n"), size
    while data and not data.endswith(b"\n"):
        data = stream.readline(MAX_LINE_BYTES)
        size += len(data)
    return None, size


class _Remote(io.RawIOBase):
    """A file of any file system as Python's buffers want it: some read from the network for each line."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _open(file: File, offset: int) -> Any:
    """A binary stream of what is in the file from an offset on, unpacked."""
    raw = file.filesystem.open(file.path, "rb")
    raw.seek(offset)
    if not file.is_local:
        raw = io.BufferedReader(_Remote(raw), _REMOTE_BYTES)
    match file.compression:
        case ".gz":
            return io.BufferedReader(gzip.GzipFile(fileobj=raw))  # type: ignore[type-var,unused-ignore]
        case ".bz2":
            return io.BufferedReader(bz2.BZ2File(raw))
        case ".xz":
            return io.BufferedReader(lzma.LZMAFile(raw))
        case ".zst":
            import pyarrow

            return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd"))
        case _:
            return raw


class ParquetShard:
    """A Parquet file, a few hundred rows at a time; of its columns only those that may be needed."""

    def __init__(self, file: File, config: DataConfig) -> None:
        self.file = file
        self.name = file.path
        self.num_bytes = file.num_bytes
        self._config = config

    def read(self, start: Position = _START) -> Iterator[tuple[Row, Position]]:
        number = start[1]
        try:
            with self.file.filesystem.open(self.file.path, "rb") as stream:
                for row in self._rows(stream, number):
                    number += 1
                    yield Row(row, "fields", self.name, number), (number, number)
        except _DAMAGE as e:
            raise errors.DatasetError(f"{self.name} cannot be read after row {number}: {e}; write it anew") from e

    def table(self) -> Any:
        """All rows of the columns needed, as an Arrow table. Raises DatasetError."""
        import pyarrow.parquet

        try:
            with self.file.filesystem.open(self.file.path, "rb") as stream:
                file = pyarrow.parquet.ParquetFile(stream)
                return file.read(columns=columns_of(file.schema_arrow.names, self._config, self.name))
        except _DAMAGE as e:
            raise errors.DatasetError(f"{self.name} cannot be read: {e}; write it anew") from e

    def _rows(self, stream: Any, skipped: int) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(stream)
        columns = columns_of(file.schema_arrow.names, self._config, self.name)
        group = 0
        while group < file.num_row_groups and skipped >= file.metadata.row_group(group).num_rows:
            skipped -= file.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, file.num_row_groups))
        for batch in file.iter_batches(batch_size=_CHUNK_ROWS, row_groups=groups, columns=columns):
            if skipped >= batch.num_rows:
                skipped -= batch.num_rows
                continue
            yield from batch.slice(skipped).to_pylist()
            skipped = 0


def columns_of(names: Sequence[str], config: DataConfig, where: str) -> list[str]:
    """Of a table's columns those that an objective may look at. Raises DatasetError if there is none."""
    known = {
        config.text_field,
        config.messages_field,
        config.prompt_field,
        config.completion_field,
        config.chosen_field,
        config.rejected_field,
        "tools",
    }
    found = [name for name in names if name in known]
    if not found:
        raise errors.DatasetError(
            f"{where} has the columns {', '.join(names) or '(none)'}, and none of them is expected: "
            "name it in data.text_field, messages_field, prompt_field and completion_field, or chosen_field"
        )
    return found


def _hf_shard(source: SourceConfig, config: DataConfig, *, streaming: bool) -> Shard:
    import datasets

    where = f"{source.path}[{source.split}]"
    try:
        if locations.hf_folder(source):
            loaded = datasets.load_from_disk(source.path)
        else:
            loaded = datasets.load_dataset(source.path, split=source.split, streaming=streaming)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, datasets.exceptions.DatasetsError) as e:
        raise errors.DatasetError(
            f"the data set {where} cannot be loaded: {e}; is the path right, and a name of the Hub reachable from here?"
        ) from e
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            raise errors.DatasetError(f"{source.path} has no split {source.split}; it has {', '.join(loaded)}")
        loaded = loaded[source.split]
    names = loaded.column_names
    columns = columns_of(names, config, where) if names else []
    if columns:
        loaded = loaded.select_columns(columns)
    if isinstance(loaded, datasets.IterableDataset):
        return HfStreamShard(where, loaded)
    if not len(loaded):
        raise errors.DatasetError(f"the data set {where} has no rows")
    return HfShard(where, loaded)


class HfShard:
    """A Hugging Face data set on disk, mapped into memory."""

    def __init__(self, name: str, dataset: Any) -> None:
        self.name = name
        self.dataset = dataset
        stored = dataset.data
        self.num_bytes = 1 + int(stored.nbytes * len(dataset) / max(1, stored.num_rows))

    def read(self, start: Position = _START) -> Iterator[tuple[Row, Position]]:
        for first in range(start[1], len(self.dataset), _CHUNK_ROWS):
            for number, row in enumerate(
                self.rows(range(first, min(first + _CHUNK_ROWS, len(self.dataset)))), first + 1
            ):
                yield Row(row, "fields", self.name, number), (number, number)

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        columns = self.dataset[list(indices)]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


class HfStreamShard:
    """A Hugging Face data set that is streamed; a position is reached by skipping rows."""

    num_bytes = 0

    def __init__(self, name: str, dataset: Any) -> None:
        self.name = name
        self._dataset = dataset

    def read(self, start: Position = _START) -> Iterator[tuple[Row, Position]]:
        number = start[1]
        try:
            for row in self._dataset.skip(number) if number else self._dataset:
                number += 1
                yield Row(row, "fields", self.name, number), (number, number)
        except _DAMAGE as e:
            raise errors.DatasetError(f"the data set {self.name} cannot be read after row {number}: {e}") from e


class RayShard:
    """What Ray Data reads, in the order of the files: lines of JSON or text, Parquet. Every process reads all of it
    through the cluster; a position is reached by skipping rows."""

    def __init__(self, source: SourceConfig, config: DataConfig) -> None:
        self.name = source.path
        self._files = locations.files_of(source)
        self._config = config
        self.num_bytes = sum(file.num_bytes for file in self._files)
        forms = {locations.format_of(file.path) for file in self._files}
        if len(forms) != 1 or "" in forms:
            raise errors.DatasetError(
                f"{source.path}: format: ray needs files of one known kind ({locations.describe_formats()}); "
                f"there are {', '.join(sorted(form or 'unknown ones' for form in forms))}"
            )
        self._form = forms.pop()

    def read(self, start: Position = _START) -> Iterator[tuple[Row, Position]]:
        import ray.exceptions

        number = 0
        try:
            for row in self._dataset().iter_rows():
                number += 1
                if number <= start[1]:
                    continue
                if self._form == "parquet":
                    yield Row(row, "fields", self.name, number), (number, number)
                    continue
                text = row["text"].encode("utf-8", "surrogatepass")
                if self._form == "jsonl" or text.strip():
                    yield Row(text, "json" if self._form == "jsonl" else "text", self.name, number), (number, number)
        except (*_DAMAGE, ray.exceptions.RayError) as e:
            raise errors.DatasetError(f"{self.name} cannot be read by Ray Data after row {number}: {e}") from e

    def _dataset(self) -> Any:
        import pyarrow.fs
        import ray.data

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        paths = [file.path for file in self._files]
        system = None
        if not self._files[0].is_local:
            system = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self._files[0].filesystem))
        if self._form != "parquet":
            return ray.data.read_text(paths, filesystem=system, drop_empty_lines=False)
        dataset = ray.data.read_parquet(paths, filesystem=system)
        return dataset.select_columns(columns_of(dataset.columns() or [], self._config, self.name))
