"""The FAISS index: vectors on disk, mapped into memory, searched by inner product. It knows rows, and no texts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, Literal

import faiss
import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.contexteval.embedders import Vectors
from michelangelo.llm.contexteval.settings import IndexKind

__all__ = ["FLAT_UP_TO", "DenseIndex", "build"]

FLAT_UP_TO: Final = 50_000
"""An exact scan of 100,000 vectors of 384 dimensions takes 9 to 23 ms, an inverted index 0.6 ms
(benchmarks/contexteval.py): half of that is what a question may cost."""
_TRAINED_ON_PER_LIST: Final = 64
_PROBES_SHARE: Final = 0.05


def build(vectors: Vectors, kind: IndexKind, path: Path) -> Literal["flat", "ivf"]:
    """Writes the index of these rows to `path`; says which kind it is. Deterministic."""
    rows, dimensions = vectors.shape
    is_ivf = kind == "ivf" or (kind == "auto" and rows > FLAT_UP_TO)
    if is_ivf and rows >= 1000:
        lists = round(math.sqrt(rows))
        quantizer = faiss.IndexFlatIP(dimensions)
        index: Any = faiss.IndexIVFFlat(quantizer, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        wanted = min(rows, lists * _TRAINED_ON_PER_LIST)
        index.train(np.ascontiguousarray(vectors[np.linspace(0, rows - 1, wanted).astype(np.int64)]))
        index.nprobe = max(8, round(lists * _PROBES_SHARE))
    else:
        index, is_ivf = faiss.IndexFlatIP(dimensions), False
    for start in range(0, rows, 8192):
        index.add(np.ascontiguousarray(vectors[start : start + 8192]))
    if is_ivf:
        index.make_direct_map()
    faiss.write_index(index, str(path))
    return "ivf" if is_ivf else "flat"


class DenseIndex:
    """One index that was opened."""

    def __init__(self, path: Path) -> None:
        try:
            self._index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as e:
            raise errors.CorpusError(f"{path} is no index that FAISS can read: ingest with --rebuild") from e
        self.num_rows: int = self._index.ntotal
        self.dimensions: int = self._index.d

    def search(self, vector: npt.NDArray[np.float32], count: int) -> tuple[npt.NDArray[np.int64], Vectors]:
        """Rows and their inner products, largest first."""
        scores, rows = self._index.search(vector[None, :], min(count, self.num_rows))
        found = rows[0] >= 0
        return rows[0][found], scores[0][found]

    def vectors(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The vectors of these rows."""
        if not len(rows):
            return np.zeros((0, self.dimensions), np.float32)
        return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(rows, dtype=np.int64)), dtype=np.float32)
