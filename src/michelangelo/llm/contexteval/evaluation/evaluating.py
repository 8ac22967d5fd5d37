"""One evaluation: ask what the gate has not seen, measure, check the answers, probe. Everything that a report shows.

It asks through `asking`, with the gate at its threshold. Writing is `reporting`'s.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from michelangelo import errors
from michelangelo.llm.contexteval import calibration, corpus, embedders, ingest, risk
from michelangelo.llm.contexteval.answer import Answer
from michelangelo.llm.contexteval.asking import Asker
from michelangelo.llm.contexteval.calibration import Example, Goal, Rows
from michelangelo.llm.contexteval.evaluation import faithfulness, measuring, probes, resampling
from michelangelo.llm.contexteval.gate import FittedGate
from michelangelo.llm.contexteval.questions import Question
from michelangelo.llm.scorer import engine as engines

__all__ = ["Evaluation", "EvaluationSettings", "evaluate", "probe"]

_Report = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """all_questions: also those that the gate has seen, which is no evidence. probes: how many at most, 0: none.
    repetitions: of the bootstrap. resamplings: how often the whole procedure is repeated on other splits."""

    all_questions: bool = False
    probes: int = 40
    repetitions: int = 500
    resamplings: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """asked: the questions that were measured, with what the gate saw. seen: how many the gate had seen (left out,
    unless all were wanted). cosine: the same questions with the fixed cosine cut-off that was fitted beside the gate;
    None where it could not promise as much. warnings: what limits all this."""

    gate: FittedGate
    corpus_digest: str
    asked: Sequence[Example]
    seen: int
    table: measuring.Table
    measures: measuring.Measures
    cosine: measuring.Measures | None
    faithfulness: faithfulness.Faithfulness
    probes: Sequence[probes.Result]
    resampled: resampling.Resampled | None
    warnings: Sequence[str]

    @property
    def verdict(self) -> str:
        """kept: what was measured is within the promise. broken: it is above, and not by chance. unclear: it is above,
        and may be by chance."""
        if self.gate.promise.rate == "answered":
            given = self.table.is_answered
            wrong, total = int((given & ~self.table.is_right).sum()), int(given.sum())
        else:
            wrong, total = self.measures.false_answers
        if total == 0 or wrong / total <= self.gate.promise.risk:
            return "kept"
        return "broken" if risk.lower_bound(wrong, total, 0.95) > self.gate.promise.risk else "unclear"


def evaluate(
    folder: str | Path,
    asked: Sequence[Question],
    gate: FittedGate,
    *,
    embedder: embedders.Embedder | None = None,
    engine: engines.Engine | None = None,
    settings: EvaluationSettings | None = None,
    report: _Report = lambda said: None,
) -> Evaluation:
    """Raises CorpusError, CalibrationError (a gate for another embedder; no question that it has not seen)."""
    settings = settings or EvaluationSettings()
    opened = corpus.open_corpus(folder)
    asker = Asker(opened, gate, embedder=embedder, engine=engine)
    fresh = [question for question in asked if settings.all_questions or not gate.has_seen(question)]
    if not fresh:
        raise errors.CalibrationError(
            f"the gate has seen all {len(asked)} questions: calibrate with --hold-out, give others, or say --all"
        )
    answers: list[tuple[Question, Answer]] = []
    rows: list[Example] = []
    for number, question in enumerate(fresh, start=1):
        answer = asker.ask(question.text)
        answers.append((question, answer))
        values = answer.decision.features
        rows.append(Example(question, values, calibration.is_right(question, answer.retrieval)))
        if number % 50 == 0 or number == len(fresh):
            report(f"asked {number:,} of {len(fresh):,} questions")
    table = measuring.table(rows, gate)
    cutoff = gate.details.get("cosine_cutoff")
    cosine = measuring.table(rows, None, cutoff=float(cutoff)) if cutoff is not None else None
    options = {"repetitions": settings.repetitions, "seed": settings.seed}
    results: list[probes.Result] = []
    if settings.probes:
        results = probe(
            folder, fresh, gate, embedder=asker.retriever.embedder, engine=engine, limit=settings.probes, report=report
        )
    resampled = None
    if settings.resamplings:
        seen = [question for question in asked if gate.has_seen(question) and not settings.all_questions]
        report(f"asking {len(seen):,} more questions, and fitting {settings.resamplings:,} times")
        others, _ = calibration.examples(seen, asker.retriever.retrieve)
        promise = gate.promise
        goal = Goal(promise.risk, promise.confidence, promise.rate, promise.guarantee, promise.next_questions)
        resampled = resampling.resample(
            Rows.of([*rows, *others]), goal, repetitions=settings.resamplings, seed=settings.seed
        )
    warnings = gate.warnings(opened.digest)
    if settings.all_questions and len(fresh) > (unseen := sum(not gate.has_seen(question) for question in fresh)):
        warnings.append(f"{len(fresh) - unseen} of these questions were used to fit the gate: they flatter it")
    return Evaluation(
        gate=gate,
        corpus_digest=opened.digest,
        asked=rows,
        seen=len(asked) - len(fresh),
        table=table,
        measures=measuring.measure(table, **options),
        cosine=measuring.measure(cosine, **options) if cosine is not None else None,
        faithfulness=faithfulness.judge(answers, opened.text),
        probes=results,
        resampled=resampled,
        warnings=warnings,
    )


def probe(
    folder: str | Path,
    asked: Sequence[Question],
    gate: FittedGate,
    *,
    embedder: embedders.Embedder,
    engine: engines.Engine | None = None,
    limit: int = 40,
    report: _Report = lambda said: None,
) -> list[probes.Result]:
    """Change facts in a copy of the corpus, and ask that. The copy is made beside nothing of the original, in a
    temporary folder, and removed."""
    original = corpus.open_corpus(folder)
    documents = {one.name: original.text(one.name) for one in original.documents}
    planned, texts = probes.plan([one for one in asked if one.is_answerable], documents, limit=limit)
    if not planned:
        return []
    report(f"changing one fact for each of {len(planned)} probes")
    with tempfile.TemporaryDirectory(prefix="contexteval-") as temporary:
        sources, copy = Path(temporary) / "documents", Path(temporary) / "corpus"
        names = {name: _as_text(name) for name in texts}
        for name, text in texts.items():
            place = sources / names[name]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode())
        # What is the same in the copy need not be embedded again.
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.lock", "gate.json"))
        ingest.ingest([sources], copy, embedder=embedder)
        opened = corpus.open_corpus(copy)
        asker = Asker(opened, gate, embedder=embedder, engine=engine)
        return [probes.judge(one, asker.ask(one.question.text), opened.text) for one in planned]


def _as_text(name: str) -> str:
    """A document's name in the copy: what was extracted is plain text, whatever it was before."""
    return name if name.endswith(".txt") else f"{name}.txt"
