"""Small training runs for tests: data, configurations, and what came of them."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data import topics
from typing import Any

from michelangelo.llm.finetune import config, recording, running
from michelangelo.llm.finetune.recording import Event
from michelangelo.llm.finetune.sinks import events_file

__all__ = ["StopAt", "events", "make_config", "pairs", "steps", "texts"]


class StopAt:
    """A sink that asks for the end of the run after some step."""

    name = "stop"

    def __init__(self, step: int) -> None:
        self._step = step
        self.is_reached = False

    def receive(self, event: Event) -> None:
        # The wish is seen at the beginning of a step, and carried out at its end.
        if isinstance(event, recording.Stepped) and event.step >= self._step - 1:
            self.is_reached = True

    def close(self) -> None: ...


def texts(folder: Path, rows: int = 60) -> Path:
    """JSONL with `text`: paragraphs of Python's documentation."""
    paragraphs = [
        p.strip()[:180] for topic in ("assert", "for", "while", "with") for p in topics.topics[topic].split("\n\n")
    ]
    kept = [p for p in paragraphs if len(p) > 20]
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": kept[i % len(kept)]}) + "\n" for i in range(rows)))
    return path


def pairs(folder: Path, rows: int = 24) -> Path:
    """JSONL with `prompt`, `chosen`, `rejected`."""
    path = folder / "pairs.jsonl"
    lines = [{"prompt": f"say {i}: ", "chosen": "yes yes", "rejected": "no"} for i in range(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def make_config(model: Path, data: Path, output: Path, /, **sections: Any) -> config.FinetuneConfig:
    """Full fine-tuning in fp32 on the CPU, 8 steps of 2 rows of 64 tokens; `sections` change it."""
    document: dict[str, Any] = {
        "model": {"path": str(model)},
        "data": {"train": [{"path": str(data)}], "sequence_length": 64, "seed": 3},
        "output": str(output),
        "objective": "pretrain",
        "adapter": {"method": "full"},
        "optimizer": {"learning_rate": 3e-3, "warmup_steps": 2},
        "training": {"max_steps": 8, "micro_batch": 2, "precision": "fp32", "device": "cpu"},
        "checkpoint": {"every_steps": 2, "keep_last": 3},
    }
    for name, section in sections.items():
        document[name] = {**document[name], **section} if isinstance(document.get(name), dict) else section
    return config.parse(document)


def events(output: Path) -> list[dict[str, Any]]:
    return events_file.read(output / running.EVENTS)


def steps(output: Path) -> dict[int, float]:
    """The loss of each step."""
    return {event["step"]: event["loss"] for event in events(output) if event["event"] == "Stepped"}
