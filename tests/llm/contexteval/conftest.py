"""A small corpus about made-up machines, with the quick embedder; and an engine that writes what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from michelangelo.llm.contexteval import corpus, ingest, settings
from michelangelo.llm.contexteval.corpus import Corpus
from michelangelo.llm.scorer.engine import Completion, Request, Task

DOCUMENTS = {
    "pumps.md": (
        "# Pumps\n\nThe Corvo pump moves 40 litres per minute. It must not run dry.\n\n## Service\n\n"
        "Change the filter of the Corvo pump every 6 months. The filter costs 25 euros.\n\n"
        "```sh\ncorvo --status\n\ncorvo --reset\n```\n"
    ),
    "valves.txt": (
        "Valves\n******\n\nThe Delta valve opens at 3 bar and closes at 2 bar. "
        "A closed valve raises a PressureError.\n\n"
        "Spare valves are kept in the east store room. The store room is open from 8 to 16 hours.\n"
    ),
    "tool.py": (
        '"""Tools of the pump station."""\n\n\ndef drain(tank: str, litres: int = 10) -> None:\n'
        '    """Drain so many litres from the tank."""\n    open_valve(tank, litres)\n'
    ),
    "notes/safety.html": (
        "<h1>Safety</h1><p>Wear gloves when the tank is drained.</p><p>The alarm sounds for 30 seconds.</p>"
    ),
}


def write_documents(folder: Path) -> Path:
    for name, text in DOCUMENTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A folder with a few documents, which a test may change."""
    return write_documents(tmp_path / "documents")


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus of these documents, for reading."""
    place = tmp_path_factory.mktemp("station")
    ingest.ingest([write_documents(place / "documents")], place / "corpus", settings.CorpusSettings(embedder="hashing"))
    return corpus.open_corpus(place / "corpus")


class Scribe:
    """An engine whose every answer is the text that it was made with; it keeps what it was asked."""

    name = "scribe"
    tasks: frozenset[Task] = frozenset({"generate"})
    capacity = 1

    def __init__(self, text: str, error: str | None = None) -> None:
        self.text, self.error = text, error
        self.asked: list[Request] = []
        self._waiting: list[Request] = []

    def submit(self, request: Request) -> None:
        self.asked.append(request)
        self._waiting.append(request)

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        done = [Completion(request.id, self.text, error=self.error) for request in self._waiting]
        self._waiting = []
        return done

    def cancel(self, request_id: str) -> None:
        self._waiting = [request for request in self._waiting if request.id != request_id]

    def close(self) -> None:
        self._waiting = []
