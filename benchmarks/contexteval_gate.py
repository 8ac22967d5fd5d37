"""The gate over all of CPython's topics: promises on other splits, and against a cosine cut-off with the same promise.

    python benchmarks/contexteval_gate.py [--embedder hashing] [--repetitions 400]

Embedding 792 chunks with MiniLM takes two minutes on a core, the questions half a minute, the repetitions seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from pydoc_data import topics

from michelangelo import errors
from michelangelo.llm.contexteval import calibration, corpus, ingest, questions, retriever
from michelangelo.llm.contexteval.calibration import Goal, Rows
from michelangelo.llm.contexteval.evaluation import resampling

QUESTIONS = Path(__file__).parents[1] / "examples" / "ask_cpython_docs" / "questions.jsonl"
GOALS = (
    (Goal(risk=0.1), 0.25),
    (Goal(risk=0.05), 0.25),
    (Goal(risk=0.02), 0.25),
    (Goal(risk=0.01, share_for_weights=0.2), 0.1805),
    (Goal(risk=0.2, rate="answered"), 0.25),
)
"""What is promised, and the share that is held out. 1 % of the unanswerable ones is a whole number of them only where a
hundred are held out, and the threshold takes 346 of the other 454."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--embedder", default="minilm")
    parser.add_argument("--repetitions", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = asked(Path(place), options.embedder)
    for goal, held_out in GOALS:
        try:
            found = resampling.resample(rows, goal, repetitions=options.repetitions, held_out=held_out)
        except errors.CalibrationError as e:
            print(f"{goal.rate} {goal.risk:.0%}: {e}")
            continue
        print(
            f"{goal.rate} {goal.risk:.0%}: kept {found.kept:.1%}, mean rate {found.rates.mean():.2%}, coverage "
            f"{found.coverages.mean():.1%}, cosine {found.baselines.mean():.1%}, times {found.gain:.2f}, "
            f"nothing promised in {found.refused} of {found.repetitions}"
        )


def asked(place: Path, embedder: str) -> Rows:
    """Every question, asked once."""
    documents = place / "documents"
    documents.mkdir()
    for name, text in topics.topics.items():
        (documents / f"{name}.txt").write_text(text, encoding="utf-8")
    began = time.monotonic()
    done = ingest.ingest([documents], place / "corpus", {"embedder": embedder})
    print(f"{done.written.num_chunks} chunks in {done.seconds:.0f} s")
    retrieve = retriever.Retriever(corpus.open_corpus(place / "corpus")).retrieve
    examples, _ = calibration.examples(questions.load(QUESTIONS), retrieve)
    print(f"{len(examples)} questions, {time.monotonic() - began:.0f} s in all")
    return Rows.of(examples)


if __name__ == "__main__":
    main()
