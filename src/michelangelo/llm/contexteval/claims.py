"""Whether a span of a document supports a claim: by its words, numbers, units, names and negations, and its meaning.

It errs on the side of "no". What it cannot see: two names that changed places ("A calls B"), and what follows only by
thinking. It reads the claim and the span, and nothing of who wrote the claim.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from michelangelo.llm.contexteval import words
from michelangelo.llm.contexteval.embedders import Embedder

__all__ = ["Check", "ClaimSettings", "best_window", "check"]

_NUMBER: Final = re.compile(
    r"(?<![\w.])[-+−]?\d+(?:[.,:]\d+)*(?![\w]|[.,]\d)|(?<![\w.])[-+−]?\d+(?:\.\d+)?(?=[a-zA-Zµ%]{1,3}\b)"
)
_UNIT: Final = re.compile(r"\s?(%|°[CF]|[A-Za-zµμ]+(?:/[a-z]+)?)")
_UNIT_NAMES: Final = {
    "%": "% percent",
    "ns": "ns nanosecond nanoseconds",
    "us": "us µs μs microsecond microseconds",
    "ms": "ms millisecond milliseconds",
    "s": "s sec secs second seconds",
    "min": "min mins minute minutes",
    "h": "h hour hours",
    "d": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "bit": "bit bits",
    "byte": "b byte bytes",
    "kB": "kb kilobyte kilobytes",
    "KiB": "kib kibibyte kibibytes",
    "MB": "mb megabyte megabytes",
    "MiB": "mib mebibyte mebibytes",
    "GB": "gb gigabyte gigabytes",
    "GiB": "gib gibibyte gibibytes",
    "TB": "tb terabyte terabytes",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "mile": "mile miles",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms",
    "Hz": "hz hertz",
    "kHz": "khz",
    "MHz": "mhz",
    "GHz": "ghz",
    "USD": "usd dollar dollars",
    "EUR": "eur euro euros",
    "°C": "°c",
    "°F": "°f",
}
_UNITS: Final = {name: unit for unit, names in _UNIT_NAMES.items() for name in names.split()}
_NUMBER_WORDS: Final = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
}
_NEGATION: Final = re.compile(
    r"\b(?:not|no|never|none|nothing|nobody|cannot|without|neither|nor|unable|fails? to|failed to)\b|n['’]t\b",
    flags=re.IGNORECASE,
)
_CLAUSE_END: Final = re.compile(r"[,;:.!?()]|\b(?:but|and|or|if|unless|because|so|which|that|when|although|while)\b")
_NEGATED_WORDS: Final = 3
"""How many content words behind a negation it is taken to reach, within its clause."""
_FRAMES: Final = frozenset({"accord", "document", "passag", "state", "say", "describ", "answer", "text", "mention"})
"""Stems of "according to the document, …": what frames a claim is none of it."""


@dataclass(frozen=True, slots=True)
class ClaimSettings:
    """min_coverage: share of the claim's content words that the span must have; of fewer than ten none may be missing.
    min_similarity: cosine of claim and span, where there is an embedder. max_sentences: how long a span may be."""

    min_coverage: float = 0.9
    min_similarity: float = 0.5
    max_sentences: int = 3


@dataclass(frozen=True, slots=True)
class Check:
    """problems: why it is not supported, one sentence each; none: it is. coverage: of the claim's content words."""

    coverage: float
    similarity: float | None
    problems: tuple[str, ...]

    @property
    def is_supported(self) -> bool:
        return not self.problems


def check(
    claim: str,
    span: str,
    analyzer: words.Analyzer,
    *,
    context: str = "",
    embedder: Embedder | None = None,
    settings: ClaimSettings | None = None,
) -> Check:
    """`context`: the headings over the span, which may name what the span speaks of, but hold no facts."""
    settings = settings or ClaimSettings()
    problems = []
    whole = f"{context}\n{span}"
    asked = [word for word in analyzer.words(claim) if word.stems[0] not in _FRAMES]
    there = set(analyzer.stems(whole)) | {
        _NUMBER_WORDS[w] for w in _NUMBER_WORDS if re.search(rf"\b{w}\b", whole.lower())
    }
    missing = [word for word in asked if not _is_covered(word, there) and not _is_unit(claim, word)]
    coverage = 1.0 - len(missing) / len(asked) if asked else 0.0
    if not asked:
        problems.append("it says nothing that could be checked")
    elif coverage < settings.min_coverage:
        said = ", ".join(dict.fromkeys(claim[word.start : word.end] for word in missing))
        problems.append(f"the source does not say: {said}")
    problems += _numbers(claim, span)
    if unknown := [name for name in words.anchors(claim) if not _is_number(name) and not _names(whole, name)]:
        problems.append(f"the source does not name: {', '.join(unknown)}")
    if turned := _turned(claim, span, analyzer):
        problems.append(f"the source says the opposite, or does not deny it: {', '.join(turned)}")
    similarity = None
    if embedder is not None and asked:
        vectors = embedder.embed([claim, span])
        similarity = float(np.dot(vectors[0], vectors[1]))
        if similarity < settings.min_similarity:
            problems.append(f"the source is about something else (similarity {similarity:.2f})")
    return Check(coverage, similarity, tuple(problems))


def best_window(
    claim: str, text: str, analyzer: words.Analyzer, *, max_sentences: int
) -> tuple[int, int, frozenset[str]]:
    """The shortest run of sentences of `text` with most of the claim's stems: start, end, and the stems it has. With
    none in common: 0, 0 and the empty set."""
    wanted = {word.stems[0] for word in analyzer.words(claim)}
    pieces = words.sentences(text)
    stems = [wanted & set(analyzer.stems(text[start:end])) for start, end in pieces]
    best: tuple[int, int, int, int] | None = None
    for first in range(len(pieces)):
        have: set[str] = set()
        for last in range(first, min(first + max_sentences, len(pieces))):
            have |= stems[last]
            ranked = (-len(have), last - first, first, last)
            if have and (best is None or ranked < best):
                best = ranked
    if best is None:
        return 0, 0, frozenset()
    _, _, first, last = best
    return pieces[first][0], pieces[last][1], frozenset(set[str]().union(*stems[first : last + 1]))


def _is_covered(word: words.Word, there: set[str]) -> bool:
    # A number has rules of its own; an identifier is covered as a whole, not by its parts.
    return word.stems[0] in there or word.stems[0][0].isdigit()


def _names(text: str, name: str) -> bool:
    """Also as a singular."""
    return words.has_anchor(text, name) or (len(name) > 3 and words.has_anchor(text, name.removesuffix("s")))


def _is_unit(text: str, word: words.Word) -> bool:
    """A unit behind a number: compared with it, in whatever way it is written."""
    before = text[: word.start].rstrip()
    return text[word.start : word.end].lower() in _UNITS and before[-1:].isdigit()


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.rstrip("%")) is not None


def _numbers(claim: str, span: str) -> list[str]:
    """Every number of the claim is in the span, with the same unit if it has one."""
    there = _measures(span)
    problems = []
    for number, unit in _measures(claim):
        units = [other for value, other in there if value == number]
        if not units:
            problems.append(f"the source does not have the number {number}")
        elif unit and unit not in units:
            problems.append(f"the source does not say {number} {unit}")
    return list(dict.fromkeys(problems))


def _measures(text: str) -> list[tuple[str, str]]:
    """Numbers and their units ("" for none). Numbers in words count up to twelve, but "one" is mostly a pronoun."""
    found = []
    for match in _NUMBER.finditer(text):
        found.append((_plain_number(match[0]), _unit_after(text, match.end())))
    for match in re.finditer(r"\b[a-z]+\b", text.lower()):
        if match[0] in _NUMBER_WORDS and match[0] != "one":
            found.append((_NUMBER_WORDS[match[0]], _unit_after(text, match.end())))
    return found


def _unit_after(text: str, at: int) -> str:
    match = _UNIT.match(text, at)
    return _UNITS.get(match[1].lower(), "") if match else ""


def _plain_number(text: str) -> str:
    """Without thousands separators and a plus: 1,000 → 1000. 3.10 stays: it may be a version."""
    text = text.replace("−", "-").removeprefix("+")
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) else text


def _turned(claim: str, span: str, analyzer: words.Analyzer) -> list[str]:
    """Words of the claim that are denied in one of both texts and never so in the other."""
    claimed, there = _polarity(claim, analyzer), _polarity(span, analyzer)
    return [stem for stem, signs in claimed.items() if stem in there and not signs & there[stem]]


def _polarity(text: str, analyzer: words.Analyzer) -> dict[str, set[bool]]:
    """Stem → whether it is denied, for each time it comes."""
    found = analyzer.words(text)
    denied: set[int] = set()
    for match in _NEGATION.finditer(text):
        end = next((stop.start() for stop in _CLAUSE_END.finditer(text, match.end())), len(text))
        behind = [i for i, word in enumerate(found) if match.end() <= word.start < end]
        denied ^= set(behind[:_NEGATED_WORDS])
    signs: dict[str, set[bool]] = {}
    for i, word in enumerate(found):
        if not _NEGATION.fullmatch(text[word.start : word.end]):
            signs.setdefault(word.stems[0], set()).add(i in denied)
    return signs
