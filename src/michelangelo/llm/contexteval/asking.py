"""Question → retrieval → gate → answer. The gate comes before anything is written, and sees the retrieval only."""

from __future__ import annotations

import time

from michelangelo.llm.contexteval import evidence, extracting, generating, words
from michelangelo.llm.contexteval.answer import NOT_IN_CORPUS, Answer, Citation, Claim
from michelangelo.llm.contexteval.corpus import Corpus
from michelangelo.llm.contexteval.deciding import Decision, Gate
from michelangelo.llm.contexteval.embedders import Embedder
from michelangelo.llm.contexteval.generating import GenerationSettings
from michelangelo.llm.contexteval.retrieval import Retrieval
from michelangelo.llm.contexteval.retriever import Reranker, Retriever, RetrieverSettings
from michelangelo.llm.scorer import engine as engines

__all__ = ["Asker"]


class Asker:
    """For one thread, over one open corpus. engine: None answers from the passages' own sentences. Engine and gate stay
    the caller's."""

    def __init__(
        self,
        corpus: Corpus,
        gate: Gate,
        *,
        embedder: Embedder | None = None,
        engine: engines.Engine | None = None,
        reranker: Reranker | None = None,
        retrieval: RetrieverSettings | None = None,
        generation: GenerationSettings | None = None,
    ) -> None:
        self.retriever = Retriever(corpus, embedder, retrieval, reranker=reranker)
        self._gate = gate
        self._engine = engine
        self._generation = generation or GenerationSettings()
        self._analyzer = words.Analyzer(corpus.settings.language)

    def ask(self, question: str) -> Answer:
        """Raises CorpusError for a question that is none (see `Retriever.retrieve`), CalibrationError from the gate,
        EngineError from the engine."""
        began = time.perf_counter()
        retrieval = self.retriever.retrieve(question)
        decided = time.perf_counter()
        decision = self._decision(retrieval)
        now = time.perf_counter()
        timings = {**retrieval.timings, "retrieval": decided - began, "gate": now - decided}
        warnings: list[str] = []
        claims, citations, removed = list[Claim](), list[Citation](), list[Claim]()
        reason = decision.reason or "the gate's score is below its threshold"
        if decision.answer:
            passages, warnings = evidence.usable(retrieval.passages)
            if self._engine is None:
                claims, citations = extracting.extract(retrieval, passages)
                reason = "no sentence that may be quoted answers the question"
            elif passages:
                made = generating.generate(
                    self._engine, retrieval, passages, self._analyzer, self.retriever.embedder, self._generation
                )
                claims, citations, removed, reason = made.claims, made.citations, made.removed, made.reason
            else:
                reason = "no passage that was found may be quoted"
            timings["answer"] = time.perf_counter() - now
        timings["total"] = time.perf_counter() - began
        return Answer(
            question=retrieval.question,
            text=_text(claims),
            claims=tuple(claims),
            citations=tuple(citations),
            removed=tuple(removed),
            decision=decision,
            retrieval=retrieval,
            by=self._engine.name if self._engine is not None else "extractive",
            reason="" if claims else reason,
            warnings=tuple(warnings),
            timings=timings,
        )

    def _decision(self, retrieval: Retrieval) -> Decision:
        if retrieval.passages:
            return self._gate.decide(retrieval.question, retrieval)
        why = "the corpus is empty" if not retrieval.num_chunks else "the question has no word"
        return Decision(False, 0.0, 1.0, "nothing was found", reason=why)


def _text(claims: list[Claim]) -> str:
    """The claims, each followed by the numbers of its citations."""
    if not claims:
        return NOT_IN_CORPUS
    parts = []
    for claim in claims:
        marks = "".join(f"[{number}]" for number in claim.citations)
        parts.append(f"{claim.text}\n{marks}" if "\n" in claim.text else f"{claim.text} {marks}")
    return ("\n" if any("\n" in part for part in parts) else " ").join(parts)
