"""The BM25 index: which words each chunk has, as arrays that are mapped into memory. It knows stems, and no texts.

A search touches the postings of the question's stems only, all of it in NumPy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import bm25s  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

from michelangelo import errors

__all__ = ["LexicalIndex", "build"]


def build(stems: Iterable[Sequence[str]], folder: Path) -> bool:
    """Writes the index of chunks' stems. False: there is no word in any of them, and nothing was written."""
    vocabulary: dict[str, int] = {}
    ids = [[vocabulary.setdefault(stem, len(vocabulary)) for stem in one] for one in stems]
    if not vocabulary:
        return False
    index = bm25s.BM25(method="lucene", backend="numpy")
    index.index((ids, vocabulary), create_empty_token=False, show_progress=False)
    folder.mkdir()
    index.save(folder, show_progress=False)
    return True


class LexicalIndex:
    """One index that was opened; `LexicalIndex.empty(n)` for chunks without a word."""

    def __init__(self, folder: Path | None, num_rows: int) -> None:
        self.num_rows = num_rows
        self._vocabulary: dict[str, int] = {}
        self._index: Any = None
        if folder is None:
            return
        try:
            self._index = bm25s.BM25.load(folder, mmap=True)
            self._vocabulary = self._index.vocab_dict
            known = int(self._index.scores["num_docs"])
        except (OSError, ValueError, KeyError, AttributeError, json.JSONDecodeError) as e:
            raise errors.CorpusError(f"{folder} is no BM25 index that can be read: ingest with --rebuild") from e
        if known != num_rows:
            raise errors.CorpusError(f"{folder} is of {known} chunks, and there are {num_rows}: ingest with --rebuild")

    def num_with(self, stem: str) -> int:
        """How many chunks have the stem."""
        at = self._vocabulary.get(stem)
        if at is None:
            return 0
        bounds = self._index.scores["indptr"]
        return int(bounds[at + 1]) - int(bounds[at])

    def idf(self, stem: str) -> float:
        """ln(1 + (N − n + ½) / (n + ½)), as Lucene has it."""
        count = self.num_with(stem)
        return math.log(1.0 + (self.num_rows - count + 0.5) / (count + 0.5))

    def scores(self, stems: Sequence[str]) -> npt.NDArray[np.float32]:
        """[chunks]: each chunk's BM25 for these stems."""
        ids = [self._vocabulary[stem] for stem in stems if stem in self._vocabulary]
        if not ids:
            return np.zeros(self.num_rows, np.float32)
        return np.asarray(self._index.get_scores_from_ids(ids), dtype=np.float32)
