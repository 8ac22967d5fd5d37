"""Speed of asking: a corpus of 100,000 chunks, the time of one question without a language model, and its parts.

.venv/bin/python benchmarks/contexteval.py [--chunks N] [--embedder minilm|hashing] [--index auto|flat|ivf]

The chunks are made up (words by Zipf's law) and their vectors are random directions: the time of a search does not
depend on what vectors mean. With `minilm` the question is embedded by the real model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from michelangelo.llm.contexteval import asking, corpus, embedders, ingest, unfitted
from michelangelo.llm.contexteval.embedders import Vectors

QUESTIONS = 200
PER_FILE = 100


class Random:
    """Vectors for the chunks by a seed, for the question by the real embedder, whose name it bears."""

    def __init__(self, real: embedders.Embedder) -> None:
        self._real = real
        self.id, self.dimensions = real.id, real.dimensions
        self._random = np.random.default_rng(0)

    def embed(self, texts: Sequence[str]) -> Vectors:
        made = self._random.standard_normal((len(texts), self.dimensions), dtype=np.float32)
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)

    def embed_parts(
        self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]
    ) -> tuple[Vectors, list[Vectors]]:
        return self.embed(texts), [self.embed([""] * len(one)) for one in spans]


def write(folder: Path, chunks: int) -> list[str]:
    """Files of a hundred paragraphs each; some of the paragraphs' beginnings, to ask for."""
    random = np.random.default_rng(1)
    vocabulary = np.array([f"{chr(97 + n % 26)}o{chr(97 + n // 26 % 26)}i{n}" for n in range(50_000)])
    asked = []
    for start in range(0, chunks, PER_FILE):
        paragraphs = []
        for number in range(start, min(start + PER_FILE, chunks)):
            ranks = np.minimum(random.zipf(1.3, 90) - 1, len(vocabulary) - 1)
            words = vocabulary[ranks]
            sentences = [" ".join(words[at : at + 15]).capitalize() + "." for at in range(0, 90, 15)]
            paragraphs.append(" ".join(sentences))
            if number % (chunks // QUESTIONS or 1) == 0:
                asked.append(f"What is {' '.join(words[:6])}?")
        (folder / f"{start:07d}.txt").write_text("\n\n".join(paragraphs))
    return asked[:QUESTIONS]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--embedder", default="minilm", choices=("minilm", "hashing"))
    parser.add_argument("--index", default="auto", choices=("auto", "flat", "ivf"))
    options = parser.parse_args()
    real = embedders.load(options.embedder)
    with tempfile.TemporaryDirectory() as place:
        documents, folder = Path(place, "documents"), Path(place, "corpus")
        documents.mkdir()
        questions = write(documents, options.chunks)
        began = time.perf_counter()
        settings = {"embedder": options.embedder, "index": options.index, "chunk_chars": 900}
        done = ingest.ingest([documents], folder, settings, embedder=Random(real))
        made = time.perf_counter() - began
        began = time.perf_counter()
        opened = corpus.open_corpus(folder)
        opening = time.perf_counter() - began
        asker = asking.Asker(opened, unfitted.UnfittedGate(), embedder=real)
        for question in questions[:5]:
            asker.ask(question)
        answers, busy = [], []
        for question in questions:
            began = time.process_time()
            answers.append(asker.ask(question))
            busy.append((time.process_time() - began) * 1000)
    totals = sorted(answer.timings["total"] * 1000 for answer in answers)
    parts = {
        name: round(statistics.median(answer.timings[name] for answer in answers) * 1000, 2)
        for name in ("embed", "dense", "lexical", "rerank", "sentences", "gate")
    }
    report = {
        "chunks": done.written.num_chunks,
        "index": done.written.index,
        "embedder": options.embedder,
        "answered": sum(answer.is_answered for answer in answers),
        "ingest_seconds_without_embedding": round(made, 1),
        "open_seconds": round(opening, 2),
        "ask_ms_p50": round(statistics.median(totals), 1),
        "ask_ms_p95": round(totals[int(0.95 * len(totals))], 1),
        "ask_cpu_ms_p50": round(statistics.median(busy), 1),
        "ask_cpu_ms_p95": round(sorted(busy)[int(0.95 * len(busy))], 1),
        "parts_ms_p50": parts,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
