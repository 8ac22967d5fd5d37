"""Labelled questions: one JSON object a line, checked as a whole, with splits that stay as they are when some come.

    {"id": "a-1", "question": "What does pop() remove?", "label": "answerable", "document": "lists", "quote": "last"}
    {"id": "n-1", "question": "What did pop() remove in 1995?", "label": "near-miss"}

answerable: a quote of the corpus holds the answer. unanswerable: the corpus says nothing about it. near-miss: it speaks
of the same things but does not say what is asked; also not answerable, and the harder half. Nothing is searched here.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from michelangelo import errors

__all__ = ["Label", "Question", "contains", "digest", "load", "missing_quotes", "normalized", "parse", "split"]

Label: TypeAlias = Literal["answerable", "unanswerable", "near-miss"]
_LABELS: Final[tuple[str, ...]] = get_args(Label)
_FIELDS: Final = frozenset({"id", "question", "label", "document", "quote"})
_MAX_CHARACTERS: Final = 2_000
_MAX_BYTES: Final = 100_000_000
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its label. quotes: texts of the corpus, each of which holds the answer by itself (answerable
    ones have at least one); document: where the quote stands, empty where that was not said."""

    id: str
    text: str
    label: Label
    document: str = ""
    quotes: tuple[str, ...] = ()

    @property
    def is_answerable(self) -> bool:
        return self.label == "answerable"

    def is_supported_by(self, text: str) -> bool:
        """Whether a text holds one of the quotes."""
        return any(contains(text, quote) for quote in self.quotes)


def load(path: str | Path) -> tuple[Question, ...]:
    """The questions of a JSONL file. Raises CorpusError with every wrong line at once."""
    try:
        if (size := Path(path).stat().st_size) > _MAX_BYTES:
            raise errors.CorpusError(f"{path} has {size} bytes: a file of questions has at most {_MAX_BYTES}")
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as e:
        raise errors.CorpusError(f"questions {path} cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise errors.CorpusError(f"questions {path} are not UTF-8 at byte {e.start}: convert the file") from e
    return parse(text.split("\n"), name=str(path))


def parse(lines: Iterable[str], *, name: str = "questions") -> tuple[Question, ...]:
    """Questions of lines of JSON; empty lines are skipped. Raises CorpusError with every wrong line at once."""
    wrong: list[str] = []
    found: list[Question] = []
    ids: dict[str, int] = {}
    texts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        problems, question = _question(line)
        if question is not None:
            if (before := ids.setdefault(question.id, number)) != number:
                problems.append(f"id {question.id!r} is that of line {before} too")
            if (before := texts.setdefault(normalized(question.text), number)) != number:
                problems.append(f"the same question as line {before}: it could stand on both sides of a split")
            found.append(question)
        wrong += [f"line {number}: {problem}" for problem in problems]
    if wrong:
        more = f"\n  … and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        said = f"{len(wrong)} mistake{'' if len(wrong) == 1 else 's'}"
        raise errors.CorpusError(f"{name}: {said}\n  " + "\n  ".join(wrong[:_SHOWN]) + more)
    if not found:
        raise errors.CorpusError(f"{name} holds no question: write one JSON object a line")
    return tuple(found)


def split(
    questions: Sequence[Question], share: float, *, salt: str = ""
) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """Two parts, the first with about `share` of the questions. Each goes where the hash of its text says, so it stays
    there when others are added or the file is sorted. salt: another one gives another, independent split."""
    cut = int(share * 2**64)
    first = [_hash(question, salt) < cut for question in questions]
    return (
        tuple(question for question, is_first in zip(questions, first, strict=True) if is_first),
        tuple(question for question, is_first in zip(questions, first, strict=True) if not is_first),
    )


def digest(question: Question) -> str:
    """16 hexadecimal digits of a question's text, so that a gate can say which questions it has seen without them."""
    return hashlib.sha256(normalized(question.text).encode()).hexdigest()[:16]


def missing_quotes(questions: Iterable[Question], documents: Mapping[str, str]) -> list[str]:
    """One sentence per quote that stands in none of the documents (texts by name), or not in the one that is named."""
    texts = {name: normalized(text) for name, text in documents.items()}
    wrong = []
    for question in questions:
        places = [question.document] if question.document in texts else list(texts)
        wrong += [
            f"{question.id}: {quote!r} is not in {question.document or 'any document'}"
            for quote in question.quotes
            if not any(normalized(quote) in texts[name] for name in places)
        ]
    return wrong


def contains(text: str, quote: str) -> bool:
    """Whether a quote stands in a text, whatever its line breaks, quotation marks, case and emphasis."""
    return f" {normalized(quote)} " in f" {normalized(text)} "


def normalized(text: str) -> str:
    """Words and operators in lower case with one space between: what two texts are compared by."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+|[^\w\s\"'“”‘’`*|]+", plain))


def _question(line: str) -> tuple[list[str], Question | None]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as e:
        return [f"no JSON ({e})"], None
    if not isinstance(row, dict):
        return ["not a JSON object"], None
    problems = [f"unknown field {name!r}" for name in row if name not in _FIELDS]
    texts = {name: row.get(name, "") for name in ("id", "question", "label", "document")}
    problems += [f"{name} must be a text" for name, value in texts.items() if not isinstance(value, str)]
    quotes = _quotes(row.get("quote", []))
    if quotes is None:
        problems.append("quote must be a text, or a list of texts")
    if problems:
        return problems, None
    problems += [f"{name} is missing" for name in ("id", "question") if not texts[name].strip()]
    if texts["label"] not in _LABELS:
        problems.append(f"label {texts['label']!r} must be one of {', '.join(_LABELS)}")
    if len(texts["question"]) > _MAX_CHARACTERS:
        problems.append(f"the question has more than {_MAX_CHARACTERS} characters")
    if texts["label"] == "answerable" and not quotes:
        problems.append("an answerable question needs a quote that holds its answer")
    if texts["label"] != "answerable" and quotes:
        problems.append("a question with a quote is answerable: change its label, or leave the quote out")
    if problems:
        return problems, None
    return [], Question(texts["id"], texts["question"], texts["label"], texts["document"], tuple(quotes or ()))


def _quotes(value: Any) -> list[str] | None:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(quote, str) and normalized(quote) for quote in given):
        return None
    return given


def _hash(question: Question, salt: str) -> int:
    key = f"{salt}\n{normalized(question.text)}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
