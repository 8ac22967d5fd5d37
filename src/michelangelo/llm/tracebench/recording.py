"""A recording: what one version answered to a suite, and how that was judged. Written once, checked whenever it is read.

Three files: `recording.json` (who, when, how, and the digests of the other two), `suite.json`, `rows.jsonl` (an answer
with its outcomes a line). The recording's digest is that of `recording.json`, so it covers every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from michelangelo import errors
from michelangelo.llm.tracebench import answers, suite
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks.outcome import Outcome
from michelangelo.llm.tracebench.suite import Suite

__all__ = ["FILES", "FORMAT", "Header", "Recording", "Row", "files_of", "read", "read_header"]

FORMAT: Final = 1
FILES: Final = ("recording.json", "suite.json", "rows.jsonl")
_ANSWER_FIELDS: Final = tuple(Answer.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Row:
    """One answer and its outcomes, one per check."""

    answer: Answer
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        return bool(self.outcomes) and all(one.passed for one in self.outcomes)

    @property
    def score(self) -> float:
        return sum(one.score for one in self.outcomes) / max(1, len(self.outcomes))

    @property
    def has_failed_engine(self) -> bool:
        """Whether there was no answer at all."""
        return bool(self.answer.error)

    @property
    def is_graded(self) -> bool:
        """Whether its score says more than passed or failed."""
        return any(one.is_graded for one in self.outcomes)


@dataclass(frozen=True, slots=True)
class Header:
    """engine: its name. source: `engine`, `trace` or `rescoring`. recorded_at: RFC 3339, UTC. version: 0 until it is
    stored. parent: digest of the recording whose answers these are. notes: what a reader must know, such as cases
    that a trace has no span for. digest: of the whole recording; empty until it is stored."""

    name: str
    engine: str
    recorded_at: str
    suite_name: str
    suite_digest: str
    num_rows: int
    source: str = "engine"
    version: int = 0
    parent: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    digest: str = ""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Recording:
    """In memory. Rows are by case, in the order of the suite, then by repeat; a case may have none."""

    header: Header
    suite: Suite
    rows: tuple[Row, ...]

    def by_case(self) -> dict[str, list[Row]]:
        """Rows per case that has any."""
        made: dict[str, list[Row]] = {}
        for row in self.rows:
            made.setdefault(row.answer.case, []).append(row)
        return made


def files_of(recording: Recording) -> dict[str, bytes]:
    """The three files, the header last."""
    body = {
        "suite.json": orjson.dumps(recording.suite.document()) + b"\n",
        "rows.jsonl": b"".join(_line(row) for row in recording.rows),
    }
    header = asdict(recording.header)
    del header["digest"]
    header["format"] = FORMAT
    header["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in body.items()}
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return {**body, "recording.json": orjson.dumps(header, option=options)}


def read_header(folder: Path) -> Header:
    """Who, when and how; the other files are not looked at. Raises SuiteError."""
    return _header(folder, _bytes(folder, "recording.json"))[0]


def read(folder: Path) -> Recording:
    """A whole recording. Raises SuiteError if a byte is missing or other than it was written."""
    header, digests = _header(folder, _bytes(folder, "recording.json"))
    data = {name: _bytes(folder, name) for name in ("suite.json", "rows.jsonl")}
    for name, content in data.items():
        if hashlib.sha256(content).hexdigest() != digests.get(name):
            raise errors.SuiteError(
                f"{folder / name} is not what was recorded ({len(content):,} bytes with another digest): it was cut off "
                "or changed; record again"
            )
    try:
        asked = suite.from_document(orjson.loads(data["suite.json"]), str(folder / "suite.json"))
        rows = tuple(_row(orjson.loads(line)) for line in data["rows.jsonl"].splitlines())
    except (orjson.JSONDecodeError, TypeError, ValueError, KeyError) as e:
        raise errors.SuiteError(f"{folder} is no recording that this program can read: {e}") from e
    return Recording(header, asked, rows)


def _header(folder: Path, data: bytes) -> tuple[Header, Mapping[str, str]]:
    try:
        document = orjson.loads(data)
        if document["format"] != FORMAT:
            raise errors.SuiteError(f"{folder} has format {document['format']!r}, and this program reads {FORMAT}: upgrade")
        digests = document["files"]
        fields = {name: document[name] for name in Header.__dataclass_fields__ if name != "digest"}
        fields["notes"] = tuple(fields["notes"])
        return Header(**fields, digest=hashlib.sha256(data).hexdigest()), digests
    except (orjson.JSONDecodeError, TypeError, KeyError) as e:
        raise errors.SuiteError(f"{folder}/recording.json is no header of a recording: {e}") from e


def _bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as e:
        raise errors.SuiteError(f"{folder / name} cannot be read: {e.strerror}; is the recording whole?") from e


def _line(row: Row) -> bytes:
    answer = {name: getattr(row.answer, name) for name in _ANSWER_FIELDS}
    return orjson.dumps({"answer": answer, "outcomes": list(row.outcomes)}, option=orjson.OPT_APPEND_NEWLINE)


def _row(document: Mapping[str, Any]) -> Row:
    return Row(
        answers.from_document(document["answer"]), tuple(Outcome(**outcome) for outcome in document["outcomes"])
    )
