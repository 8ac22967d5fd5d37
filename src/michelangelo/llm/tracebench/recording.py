"""A recording: what one version answered to a suite, and how that was judged. Written once, checked when it is read.

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

__all__ = ["FILES", "FORMAT", "Header", "Recording", "Row", "files_of", "read", "read_header", "row_of"]

FORMAT: Final = 1
FILES: Final = ("recording.json", "suite.json", "rows.jsonl")
_ANSWER_FIELDS: Final = tuple(Answer.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Row:
    """One answer and its outcomes, one per check. Made by `row_of`.

    passed: every check. score: the mean of the checks' scores. is_graded: it says more than passed or failed.
    """

    answer: Answer
    outcomes: tuple[Outcome, ...]
    passed: bool
    score: float
    is_graded: bool


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


def row_of(answer: Answer, outcomes: tuple[Outcome, ...]) -> Row:
    """With what follows from the outcomes; without any it has failed."""
    passed = bool(outcomes) and all(one.passed for one in outcomes)
    score = sum(one.score for one in outcomes) / max(1, len(outcomes))
    return Row(answer, outcomes, passed, score, any(one.is_graded for one in outcomes))


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
                f"{folder / name} is not what was recorded ({len(content):,} bytes of another digest): it was cut "
                "off or changed; record again"
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
            raise errors.SuiteError(f"{folder} has format {document['format']!r}, this program reads {FORMAT}: upgrade")
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
    outcomes = tuple(Outcome(**outcome) for outcome in document["outcomes"])
    if not all(0 <= one.score <= 1 for one in outcomes):
        raise ValueError("a score is not from 0 to 1")
    return row_of(answers.from_document(document["answer"]), outcomes)
