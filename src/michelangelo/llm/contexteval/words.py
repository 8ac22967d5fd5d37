"""Text → words, stems, sentences and anchors, each with its place in the text. What both sides of a search agree on.

It knows neither documents nor indexes. Everything here is deterministic, and linear in the length of the text.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import Stemmer  # type: ignore[import-not-found]

from michelangelo import errors

__all__ = [
    "MAX_SENTENCE_CHARS",
    "STOP_WORDS",
    "Analyzer",
    "Word",
    "anchors",
    "has_anchor",
    "languages",
    "looks_like_code",
    "sentences",
]

STOP_WORDS: Final = frozenset(
    re.findall(
        r"\S+",
        """
        a about all also am an and any are at be been being both but by can cannot could did do does doing each either
        etc had has have having he her here hers him his how i in into is it its itself just may me might mine must my
        myself neither of on or our ours she should so some such than that the their theirs them then there these they
        this those to too us very was we were what when where whether which who whom whose why will would you your yours
        """,
    )
)
_WORD: Final = re.compile(r"\d+(?:[.,]\d+)+|\w+", flags=re.UNICODE)
_CJK: Final = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿가-힯]+")
_BLANK: Final = re.compile(r"\n(?:[ \t]*\n)+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_END: Final = re.compile(
    r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[」』”]*|\n[ \t]*\n|\n(?=[ \t]*(?:[-*•+]|\d{1,3}[.)])[ \t])"
)
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|approx|resp|incl|fig|eq|sec|ch|vol|p|pp|mr|mrs|ms|dr|prof|st|jr|sr|inc|ltd)"
    r"|\b[A-Z])\.$",
    flags=re.IGNORECASE,
)
_CODE_LINE: Final = re.compile(
    r"^\s*(?:>>>|\.\.\.(?:\s|$)|\$ |#!|[@{}]|(?:def|class|import|from|return|for|while|if|elif|else|try|except|with|"
    r"async|await|raise|yield|print|func|fn|let|const|var|public|private|static|#include)\b.*[:;({=\])]\s*$)"
    r"|::=|[;{}]\s*$|^\s*[\w.\[\]\"']+\s*[-+*/|&]?=\s*\S|^\s*[\w.]+\([^)]*\)\s*$|->|=>"
)
_ANCHOR: Final = re.compile(
    r"`(?P<ticked>[^`\n]{1,80})`|[\"“](?P<quoted>[^\"”\n]{2,80})[\"”]"
    r"|(?P<identifier>\b(?:\w+\.)*\w*_\w*\b|\b(?:[A-Za-z]\w*\.)+[A-Za-z]\w*\b|\b[a-zA-Z]\w*(?=\()|\b[a-z]+[A-Z]\w*\b"
    r"|\b[A-Z][a-z0-9]+[A-Z]\w*\b)"
    r"|(?P<number>(?<![\w.])[-+]?\d+(?:[.,:]\d+)*%?)|(?P<name>\b[A-Z][\w’'-]*)",
    flags=re.UNICODE,
)
MAX_SENTENCE_CHARS: Final = 1200


@dataclass(frozen=True, slots=True)
class Word:
    """A word at `start:end`. stems: of the whole first; then of an identifier's parts (`read_text`, `ReadText`)."""

    start: int
    end: int
    stems: tuple[str, ...]


def languages() -> list[str]:
    """What a stemmer can be had for; "none" is also allowed."""
    return ["none", *sorted(Stemmer.algorithms())]


class Analyzer:
    """Words and stems of one language. Not to be shared between threads: a stemmer has a buffer of its own."""

    def __init__(self, language: str = "english") -> None:
        if language not in languages():
            raise errors.CorpusError(f"language {language!r} is not known: choose one of {', '.join(languages())}")
        self.language = language
        self._stemmer = None if language == "none" else Stemmer.Stemmer(language)
        self._stop_words = STOP_WORDS if language == "english" else frozenset[str]()
        self._stems_of = functools.lru_cache(maxsize=200_000)(self._stems)

    def words(self, text: str) -> list[Word]:
        """In order; stop words are left out. Runs of Chinese, Japanese or Korean become pairs of characters."""
        found: list[Word] = []
        for match in _WORD.finditer(text):
            token = match[0]
            if not token.isascii() and _CJK.search(token):
                found.extend(_pairs(token, match.start()))
                continue
            if stems := self._stems_of(token):
                found.append(Word(match.start(), match.end(), stems))
        return found

    def places(self, text: str, wanted: Collection[str]) -> list[tuple[int, int, str]]:
        """Where these stems are: start, end and stem, in order. As `words`, for the many words that are not wanted."""
        found: list[tuple[int, int, str]] = []
        stems_of = self._stems_of
        for match in _WORD.finditer(text):
            token = match[0]
            if not token.isascii() and _CJK.search(token):
                found += [
                    (one.start, one.end, one.stems[0]) for one in _pairs(token, match.start()) if one.stems[0] in wanted
                ]
                continue
            for stem in stems_of(token):
                if stem in wanted:
                    found.append((match.start(), match.end(), stem))
        return found

    def stems(self, text: str) -> list[str]:
        """Every stem, with repetition: what BM25 counts."""
        return [stem for word in self.words(text) for stem in word.stems]

    def _stems(self, token: str) -> tuple[str, ...]:
        whole = unicodedata.normalize("NFKC", token).casefold()
        if whole in self._stop_words or not whole.strip("_"):
            return ()
        parts = [part for piece in token.split("_") for part in _CAMEL.split(piece) if part]
        lowered = [whole]
        if len(parts) > 1 or parts[0] != token:
            lowered += [part.casefold() for part in parts if len(part) > 1 and part.casefold() != whole]
        if self._stemmer is not None:
            lowered = self._stemmer.stemWords(lowered)
        return tuple(dict.fromkeys(lowered))


def _pairs(token: str, offset: int) -> Iterator[Word]:
    if len(token) == 1:
        yield Word(offset, offset + 1, (token,))
    for i in range(len(token) - 1):
        yield Word(offset + i, offset + i + 2, (unicodedata.normalize("NFKC", token[i : i + 2]).casefold(),))


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence, without the space around it. A block of code is one, unless it is long."""
    found: list[tuple[int, int]] = []
    for start, end in _paragraphs(text):
        part = text[start:end]
        if looks_like_code(part):
            found.extend(_lines(text, start, end) if end - start > MAX_SENTENCE_CHARS else [(start, end)])
            continue
        begin = start
        for match in _END.finditer(text, start, end):
            if match[0].startswith(".") and _ABBREVIATION.search(
                text, max(begin, match.start() - 8), match.start() + 1
            ):
                continue
            found.append((begin, match.end()))
            begin = match.end()
        found.append((begin, end))
    trimmed = (_trim(text, start, end) for start, end in found)
    return [piece for start, end in trimmed if start < end for piece in _bounded(text, start, end)]


def looks_like_code(text: str) -> bool:
    """Whether a paragraph is rather code than prose: most of its lines have the look of it."""
    lines = [line for line in text.split("\n") if line.strip()]
    return bool(lines) and sum(bool(_CODE_LINE.search(line)) for line in lines) * 2 > len(lines)


def anchors(question: str) -> tuple[str, ...]:
    """Numbers, names, identifiers and quoted texts, in order, each once. A sentence's first word is no name."""
    found: list[str] = []
    for match in _ANCHOR.finditer(question):
        kind = match.lastgroup or ""
        text = match[kind].strip()
        if kind == "name" and not _is_name(question, match):
            continue
        if text and any(c.isalnum() for c in text):
            found.append(text)
    return tuple(dict.fromkeys(found))


def has_anchor(text: str, anchor: str) -> bool:
    """Whether `text` has it as a whole word or words, whatever the case and the space between them."""
    return _anchor_pattern(anchor).search(text) is not None


@functools.lru_cache(maxsize=4096)
def _anchor_pattern(anchor: str) -> re.Pattern[str]:
    inner = r"\s+".join(re.escape(part) for part in anchor.split())
    return re.compile(rf"(?<![\w]){inner}(?![\w]|[.,]\d)", flags=re.IGNORECASE)


def _is_name(question: str, match: re.Match[str]) -> bool:
    word, before = match[0], question[: match.start()].rstrip(" \t\n\"'([“")
    is_first = not before or before[-1] in ".!?:;"
    is_acronym = len(word) > 1 and word.isupper()
    return word.casefold() not in STOP_WORDS and word != "I" and (is_acronym or not is_first)


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _BLANK.finditer(text):
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in re.compile(r"[^\n]+").finditer(text, start, end):
        yield match.start(), match.end()


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _bounded(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Text without an end of a sentence is cut at spaces."""
    while end - start > MAX_SENTENCE_CHARS:
        cut = text.rfind(" ", start + MAX_SENTENCE_CHARS // 2, start + MAX_SENTENCE_CHARS)
        cut = cut if cut > 0 else start + MAX_SENTENCE_CHARS
        yield start, cut
        start = cut + (text[cut] == " ")
    if start < end:
        yield start, end
