"""How a corpus is made: what is taken, how it is cut, what finds it again. Part of the corpus' digest.

Data and its checks only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, TypeAlias

from michelangelo import errors
from michelangelo.llm.contexteval import words

__all__ = ["FORMAT_VERSION", "CorpusSettings", "IndexKind", "parse"]

IndexKind: TypeAlias = Literal["auto", "flat", "ivf"]
FORMAT_VERSION: Final = 2
"""Of what extraction, chunking and the files of a corpus are: another one and everything is made anew."""


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """chunk_chars: what a chunk aims at (MiniLM reads 256 word pieces, about 1,000 characters of English).
    code_chars: a block of code or a table up to this size stays whole. max_document_mb: larger files are left out, and
    said; 10⁶ bytes. Plain text is streamed, so it may be large; other formats are held in memory while they are read,
    and have `max_parsed_mb`, which is also what a compressed one may grow to. index: "flat" is exact; "ivf" is faster
    beyond some 200,000 chunks, and misses a few; "auto" takes the one by the number of chunks."""

    embedder: str = "minilm"
    language: str = "english"
    chunk_chars: int = 900
    code_chars: int = 2000
    max_document_mb: float = 1000.0
    max_parsed_mb: float = 64.0
    max_pages: int = 5000
    index: IndexKind = "auto"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def problems(self) -> list[str]:
        """What is wrong with it, one sentence per field."""
        found = []
        if not self.embedder:
            found.append("embedder: is empty; write minilm, hashing or hashing:DIMENSIONS")
        if self.language not in words.languages():
            found.append(f"language: {self.language!r} is not known; choose one of {', '.join(words.languages())}")
        if not 100 <= self.chunk_chars <= 20_000:
            found.append(f"chunk_chars: {self.chunk_chars} is not between 100 and 20,000")
        if not self.chunk_chars <= self.code_chars <= 100_000:
            found.append(f"code_chars: {self.code_chars} is not between chunk_chars ({self.chunk_chars}) and 100,000")
        for name in ("max_document_mb", "max_parsed_mb", "max_pages"):
            if not 0 < getattr(self, name) <= 1e6:
                found.append(f"{name}: {getattr(self, name)} is not between 0 and 1,000,000")
        if self.index not in ("auto", "flat", "ivf"):
            found.append(f"index: {self.index!r} is none of auto, flat, ivf")
        return found


def parse(data: Mapping[str, Any], *, where: str = "settings") -> CorpusSettings:
    """Raises CorpusError that names every wrong field of `where`."""
    known = {one.name: one.type for one in fields(CorpusSettings)}
    found = [f"{name}: there is no such setting; known are {', '.join(known)}" for name in data if name not in known]
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in known:
            continue
        kind = known[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind == "int" and not (is_number and float(value).is_integer()):
            found.append(f"{name}: {value!r} is no whole number")
        elif kind == "float" and not is_number:
            found.append(f"{name}: {value!r} is no number")
        elif kind not in ("int", "float") and not isinstance(value, str):
            found.append(f"{name}: {value!r} is no text")
        else:
            values[name] = {"int": int, "float": float}.get(str(kind), str)(value)
    made = CorpusSettings(**values)
    if found := found + made.problems():
        raise errors.CorpusError(f"{where}: {'; '.join(found)}")
    return made
