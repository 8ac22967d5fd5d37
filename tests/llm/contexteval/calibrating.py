"""What tests of the gate share: a small corpus of CPython's topics, its questions, and examples made of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pydoc_data import topics

import numpy as np

from michelangelo.llm.contexteval import features, ingest, questions, settings
from michelangelo.llm.contexteval.calibration import Example
from michelangelo.llm.contexteval.questions import Label, Question

QUESTIONS = Path(__file__).parents[3] / "examples" / "ask_cpython_docs" / "questions.jsonl"
TOPICS = (
    *("assert", "async", "augassign", "binary", "booleans", "break", "calls", "class", "continue", "del", "dict"),
    *("for", "global", "import", "integers", "lambda", "naming", "nonlocal", "numbers", "pass", "power", "raise"),
    *("return", "shifting", "truth", "try", "unary", "while", "with", "yield", "typesseq-mutable", "context-managers"),
)
MORE_TOPICS = (*TOPICS, "customization", "attribute-access", "typesmapping", "string-methods")
"""About 250 chunks, which MiniLM embeds in half a minute."""


def write_topics(folder: Path, names: tuple[str, ...] = TOPICS) -> Path:
    """One text file per topic; without names: all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or topics.topics:
        (folder / f"{name}.txt").write_text(topics.topics[name], encoding="utf-8")
    return folder


def make_corpus(folder: Path, embedder: str = "hashing", names: tuple[str, ...] = TOPICS) -> Path:
    """A corpus of these topics."""
    place = folder / "corpus"
    ingest.ingest([write_topics(folder / "topics", names)], place, settings.CorpusSettings(embedder=embedder))
    return place


def asked(names: tuple[str, ...] = TOPICS, *, every: int = 6, of: int = 1) -> tuple[Question, ...]:
    """Of the questions over CPython's topics those that the small corpus answers, and some that no topic answers: `of`
    in `every`. (A question that another topic answers is no near miss of these.)"""
    everything = questions.load(QUESTIONS)
    answerable = [one for one in everything if one.document in names]
    others = [one for one in everything if not one.is_answerable]
    return (*answerable, *(one for number, one in enumerate(others) if number % every < of))


def synthetic(generator: np.random.Generator, label: Label, shift: float, number: int) -> Example:
    """An example whose features are noise around `shift`, each clipped to 0 … 1."""
    values: Mapping[str, float] = {
        name: float(np.clip(generator.normal(shift, 0.15), 0.0, 1.0)) for name in features.NAMES
    }
    quotes = ("quote",) if label == "answerable" else ()
    question = Question(f"{label}-{number}", f"question {label} {number}", label, "", quotes)
    return Example(question, dict(values), label == "answerable")


def synthetic_set(seed: int, answerable: int, others: int) -> list[Example]:
    """Answerable ones score higher; half of the others are near misses, which lie between."""
    generator = np.random.default_rng(seed)
    return [
        *(synthetic(generator, "answerable", 0.62, i) for i in range(answerable)),
        *(synthetic(generator, "near-miss", 0.48, i) for i in range(others // 2)),
        *(synthetic(generator, "unanswerable", 0.3, i) for i in range(others - others // 2)),
    ]
