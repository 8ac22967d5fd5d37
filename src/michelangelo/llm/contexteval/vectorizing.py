"""Vectors of a generation's chunks, and of their sentences: those of the generation before where the text is the same,
else computed, each once. It writes vectors only, and decides nothing about documents.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from michelangelo.llm.contexteval import words
from michelangelo.llm.contexteval.corpus import Corpus
from michelangelo.llm.contexteval.embedders import Embedder, SentenceEmbedder, Vectors

__all__ = ["Vectorizer"]

_BATCH: Final = 256


class Vectorizer:
    """A context: it closes the files of sentences' vectors."""

    def __init__(self, folder: Path, embedder: Embedder, old: Corpus | None) -> None:
        self._embedder = embedder
        self._old = old if old is not None and old.embedder_id == embedder.id and old.dense is not None else None
        self._vectors = (folder / "sentences.i8").open("wb")
        self._scales = (folder / "sentences.f4").open("wb")
        self._num_sentences = 0

    def __enter__(self) -> Vectorizer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None,
                 /) -> None:  # fmt: skip
        self._vectors.close()
        self._scales.close()

    def fill(
        self,
        rows: npt.NDArray[np.void],
        vectors: npt.NDArray[np.float32],
        text_of: Callable[[Any], tuple[str, str]],
        report: Callable[[int, int], object],
    ) -> int:
        """`vectors` [chunks, dimensions] and the sentences of `rows`; says how many texts were embedded. text_of: the
        headings and the text of a row."""
        known: dict[bytes, int] = {}
        if self._old is not None:
            known = {key.tobytes(): number for number, key in enumerate(self._old.chunks["key"])}
        keys = [key.tobytes() for key in rows["key"]]
        first: dict[bytes, int] = {}
        for number, key in enumerate(keys):
            first.setdefault(key, number)
        self._reuse([(number, known[key]) for key, number in first.items() if key in known], rows, vectors)
        new = [number for key, number in first.items() if key not in known]
        for start in range(0, len(new), _BATCH):
            part = new[start : start + _BATCH]
            self._embed(part, rows, vectors, [text_of(rows[number]) for number in part])
            report(start + len(part), len(new))
        for number, key in enumerate(keys):
            if (same := first[key]) != number:
                vectors[number] = vectors[same]
                for name in ("first_sentence", "num_sentences"):
                    rows[name][number] = rows[name][same]
        return len(new)

    def _reuse(
        self, pairs: list[tuple[int, int]], rows: npt.NDArray[np.void], vectors: npt.NDArray[np.float32]
    ) -> None:
        old = self._old
        if old is None or old.dense is None:
            return
        for start in range(0, len(pairs), 8192):
            part = pairs[start : start + 8192]
            vectors[[number for number, _ in part]] = old.dense.vectors(
                np.array([there for _, there in part], np.int64)
            )
            for number, there in part:
                self._keep(number, rows, old.sentence_vectors(there))

    def _embed(
        self, numbers: list[int], rows: npt.NDArray[np.void], vectors: npt.NDArray[np.float32],
        texts: list[tuple[str, str]],
    ) -> None:  # fmt: skip
        whole = [f"{above}\n{text}" if above else text for above, text in texts]
        if not isinstance(self._embedder, SentenceEmbedder):
            vectors[numbers] = self._embedder.embed(whole)
            return
        spans = []
        for above, text in texts:
            offset = len(above) + 1 if above else 0
            spans.append([(start + offset, end + offset) for start, end in words.sentences(text)])
        vectors[numbers], parts = self._embedder.embed_parts(whole, spans)
        for number, part in zip(numbers, parts, strict=True):
            self._keep(number, rows, part)

    def _keep(self, number: int, rows: npt.NDArray[np.void], sentences: Vectors | None) -> None:
        """Eight bits a number, with a scale per sentence: cosines are off by less than 0.005."""
        count = 0 if sentences is None else len(sentences)
        rows["first_sentence"][number], rows["num_sentences"][number] = self._num_sentences, count
        if sentences is None:
            return
        scales = np.maximum(np.abs(sentences).max(axis=1, initial=0.0), 1e-12).astype(np.float32) / np.float32(127)
        self._vectors.write(np.rint(sentences / scales[:, None]).astype(np.int8).tobytes())
        self._scales.write(scales.tobytes())
        self._num_sentences += count
