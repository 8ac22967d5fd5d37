"""What is to be counted: files, folders, JSONL, Parquet, standard input → texts, read a piece at a time.

In a folder, what git ignores is left out, as are hidden folders; binary files are left out and said. A row that cannot
be read is counted and the first ones are listed: it never ends the rest. It counts no tokens.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO, TypeAlias

import pathspec

from michelangelo import errors
from michelangelo.llm.tokens import chats

__all__ = ["Item", "Problems", "Row", "items", "text_of_row"]

Row: TypeAlias = str | Mapping[str, Any]
"""A text, or a conversation: messages, and tools."""
_BLOCK_CHARS: Final = 1 << 18
_HEAD_BYTES: Final = 8192
_SHOWN: Final = 10
_MAX_LINE: Final = 64 << 20
_ROW_ENDINGS: Final = (".jsonl", ".ndjson")
_COLUMNS: Final = ("prompt", "text", "content", "input", "question", "instruction")
_IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".gif", ".webp")


@dataclass(slots=True)
class Problems:
    """What could not be read: how much, and the first of it."""

    skipped: int = 0
    malformed: int = 0
    shown: list[str] = field(default_factory=list)

    def skip(self, what: str) -> None:
        """A whole file."""
        self.skipped += 1
        self._show(what)

    def row(self, what: str) -> None:
        """A row."""
        self.malformed += 1
        self._show(what)

    def _show(self, what: str) -> None:
        if len(self.shown) < _SHOWN:
            self.shown.append(what)


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or standard input. texts: its blocks, which are rows if `is_rows`."""

    name: str
    texts: Callable[[], Iterator[Row]]
    is_rows: bool = False


def items(
    paths: Iterable[str],
    problems: Problems,
    *,
    column: str = "",
    stdin: TextIO | None = None,
    render: Callable[[Mapping[str, Any]], Row] | None = None,
) -> Iterator[Item]:
    """One item for each file. `-`: standard input. column: of rows, else the first of the usual ones.

    render: makes the text of a row, instead of a column. Raises PricingError for a path named that cannot be read.
    """
    of_row = render or (lambda row: text_of_row(row, column))
    for path in paths:
        if path == "-":
            yield Item("-", lambda: _blocks(stdin or sys.stdin))
        elif Path(path).is_dir():
            for found in _walk(Path(path)):
                made = _item(found, of_row, problems)
                if made is not None:
                    yield made
        elif not Path(path).is_file():
            raise errors.PricingError(f"{path}: no such file or folder; - reads standard input")
        else:
            made = _item(Path(path), of_row, problems)
            if made is None:
                raise errors.PricingError(
                    f"{path}: {problems.shown[-1].partition(': ')[2]}; give text, JSONL or Parquet"
                )
            yield made


def text_of_row(row: Mapping[str, Any], column: str = "") -> Row:
    """The text of a row, or its conversation. Raises ValueError that says what is missing."""
    body = row.get("body")
    if not column and isinstance(body, Mapping) and "messages" in body:
        row = body  # A line of OpenAI's batch format.
    if not column and "messages" in row:
        if wrong := chats.faults(row["messages"], row.get("tools") or []):
            raise ValueError("; ".join(wrong[:3]))
        return row
    if column:
        if not isinstance(row.get(column), str):
            raise ValueError(f"no text in the column {column!r}")
        return str(row[column])
    name = next((name for name in _COLUMNS if isinstance(row.get(name), str)), "")
    if not name:
        raise ValueError(f"no column of text: it has {', '.join(map(str, list(row)[:8])) or 'nothing'}; name one")
    return str(row[name])


def _item(path: Path, of_row: Callable[[Mapping[str, Any]], Row], problems: Problems) -> Item | None:
    if path.suffix.lower() == ".parquet":
        return Item(str(path), lambda: _parquet_rows(path, of_row, problems), is_rows=True)
    fault = _fault(path)
    if fault:
        problems.skip(f"{path}: {fault}")
        return None
    if path.suffix.lower() in _ROW_ENDINGS:
        return Item(str(path), lambda: _json_rows(path, of_row, problems), is_rows=True)
    return Item(str(path), lambda: _file_blocks(path, problems))


def _fault(path: Path) -> str:
    if path.suffix.lower() in _IMAGE_ENDINGS:
        return "an image: count it with --image"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as e:
        return f"cannot be read: {e.strerror}"
    if b"\0" in head:
        return "a binary file"
    try:
        head.decode() if len(head) < _HEAD_BYTES else head[:-3].decode("utf-8", "strict")
    except UnicodeDecodeError as e:
        # The end of the block may cut a character; anything before it is no UTF-8.
        if e.start < len(head) - 7:
            return "not UTF-8 text"
    return ""


def _file_blocks(path: Path, problems: Problems) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        has_bad = False
        for block in _blocks(file):
            has_bad = has_bad or "�" in block
            yield block
    if has_bad:
        problems.row(f"{path}: bytes that are no UTF-8 count as the replacement character")


def _blocks(file: TextIO) -> Iterator[str]:
    while block := file.read(_BLOCK_CHARS):
        yield block


def _json_rows(path: Path, of_row: Callable[[Mapping[str, Any]], Row], problems: Problems) -> Iterator[Row]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("no JSON object")
                yield of_row(row)
            except (ValueError, RecursionError, errors.PricingError) as e:
                problems.row(f"{path}:{number}: {e}")


def _parquet_rows(path: Path, of_row: Callable[[Mapping[str, Any]], Row], problems: Problems) -> Iterator[Row]:
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=512):
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield of_row(row)
                    except (ValueError, errors.PricingError) as e:
                        problems.row(f"{path}:{number}: {e}")
    except (OSError, arrow.ArrowException) as e:
        raise errors.PricingError(f"{path}: no Parquet file that can be read: {e}") from e


def _walk(folder: Path) -> Iterator[Path]:
    """Files in order, without what .gitignore files leave out: those in it, and those of its repository above it."""
    root = next((up for up in (folder.resolve(), *folder.resolve().parents) if (up / ".git").exists()), None)
    rules: list[tuple[Path, pathspec.PathSpec[Any]]] = []
    if root is not None:
        above = [up for up in (folder.resolve(), *folder.resolve().parents) if up == root or root in up.parents]
        rules = [(up, spec) for up in reversed(above[1:]) if (spec := _ignored(up)) is not None]
    yield from _walk_one(folder, rules)


def _walk_one(folder: Path, rules: list[tuple[Path, pathspec.PathSpec[Any]]]) -> Iterator[Path]:
    spec = _ignored(folder)
    rules = [*rules, (folder.resolve(), spec)] if spec is not None else rules
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name == ".git" or _is_ignored(path, rules):
            continue
        if path.is_dir():
            if not path.name.startswith("."):
                yield from _walk_one(path, rules)
        elif path.is_file():
            yield path


def _is_ignored(path: Path, rules: list[tuple[Path, pathspec.PathSpec[Any]]]) -> bool:
    """The innermost rule that says something decides, as git does."""
    whole = path.parent.resolve() / path.name
    for place, spec in reversed(rules):
        said = spec.check_file(whole.relative_to(place).as_posix() + ("/" if path.is_dir() else "")).include
        if said is not None:
            return bool(said)
    return False


def _ignored(folder: Path) -> pathspec.PathSpec[Any] | None:
    file = folder / ".gitignore"
    if not file.is_file():
        return None
    return pathspec.PathSpec.from_lines("gitignore", file.read_text(errors="replace").splitlines())
