"""Ask CPython's own documentation: ingest it, fit the gate with labelled questions, and ask. Offline; about a minute.

    python examples/ask_cpython_docs/main.py [--all] [--embedder hashing] [--out FOLDER] [QUESTION …]

The topics come with Python (`pydoc_data`). Without --all the shorter ones are taken, with the questions they answer
and those that none answers. A quarter of the questions is held out and shows whether the promise is kept;
`--out FOLDER` keeps the report, gate.html.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from pydoc_data import topics

from michelangelo.llm.contexteval import asking, calibration, corpus, gate, ingest, questions, retriever
from michelangelo.llm.contexteval.evaluation import evaluating, reporting

HERE = Path(__file__).parent
LONGEST = 10_000
"""Characters of a topic that is taken without --all: what is left is a third of the text."""
ASKED = (
    "What happens to assert statements when Python runs with -O?",
    "When is the else clause of a while loop executed?",
    "How many parameters may a lambda have at most?",
    "Who won the football world cup in 1998?",
)
RISK = 0.05


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("questions", nargs="*", default=ASKED)
    parser.add_argument("--all", action="store_true", help="all topics: some minutes on two cores")
    parser.add_argument("--embedder", default="minilm")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run(options.out or Path(place), options.all, options.embedder, tuple(options.questions))


def run(out: Path, takes_all: bool, embedder: str, asked: tuple[str, ...]) -> None:
    everything = questions.load(HERE / "questions.jsonl")
    asked_about = {one.document for one in everything}
    names = [name for name, text in topics.topics.items() if takes_all or (name in asked_about and len(text) < LONGEST)]
    documents, folder = out / "documents", out / "corpus"
    documents.mkdir(parents=True, exist_ok=True)
    for name in names:
        (documents / f"{name}.txt").write_text(topics.topics[name], encoding="utf-8")
    done = ingest.ingest([documents], folder, {"embedder": embedder})
    print(f"{done.written.num_documents} topics, {done.written.num_chunks} chunks, corpus {done.digest[:12]}, "
          f"{done.seconds:.0f} s")  # fmt: skip
    opened = corpus.open_corpus(folder)
    labelled = [one for one in everything if one.document in names or not one.is_answerable]
    held_out, others = questions.split(labelled, 0.25)
    fitted = calibrated(opened, others, folder)
    asker = asking.Asker(opened, fitted)
    wanted = evaluating.EvaluationSettings(probes=10, repetitions=200)
    made = evaluating.evaluate(folder, held_out, fitted, embedder=asker.retriever.embedder, settings=wanted)
    reporting.write(made, out / "gate.html")
    print("\nheld out:", *reporting.sentences(made), sep="\n  ")
    for question in asked:
        began = time.perf_counter()
        answer = asker.ask(question)
        print(f"\n{question}  ({(time.perf_counter() - began) * 1000:.0f} ms)\n  {answer.text}")
        for one in answer.citations:
            print(f"  [{one.number}] {one.document}, {' > '.join(one.section)}, {one.start}–{one.end}")


def calibrated(opened: corpus.Corpus, asked: tuple[questions.Question, ...], folder: Path) -> gate.FittedGate:
    """The gate, saved beside the corpus."""
    finder = retriever.Retriever(opened)
    rows, _ = calibration.examples(asked, finder.retrieve)
    goal = calibration.Goal(risk=RISK)
    fitted = calibration.calibrate(rows, goal, embedder=opened.embedder_id, corpus_digest=opened.digest)
    gate.save(fitted, folder / gate.FILE_NAME)
    print(
        f"gate: of what is not answerable at most {fitted.promise.risk:.0%} is answered, with "
        f"{fitted.promise.confidence:.0%} confidence; it answers {fitted.coverage:.0%} of the rest"
    )
    return fitted


if __name__ == "__main__":
    main()
