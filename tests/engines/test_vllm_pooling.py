"""vLLM as an engine of embeddings: directions that are those of the model's last hidden state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.llm.scorer import conformance
from tests.llm.scorer.conformance import Subject

from michelangelo.llm.scorer import engine as engines
from michelangelo.llm.scorer.engine import Engine, Request
from michelangelo.llm.scorer.engines import opening


@pytest.fixture(scope="module")
def engine(model_folder: Path) -> Iterator[Engine]:
    """In a process of its own, as it is by default."""
    fields = {"model": str(model_folder), "dtype": "float32", "max_sequences": 8, "max_context": 512}
    engine = opening.open_engine(opening.parse({"kind": "vllm", "runner": "pooling", "compiles": False, **fields}))
    yield engine
    engine.close()


def test_embeddings_are_the_last_hidden_state(engine: Engine, model_folder: Path) -> None:
    assert engine.tasks == {"embed"}
    conformance.check_embeddings_are_directions(Subject(engine))
    text = "A class is an object."
    (found,) = engines.run(engine, [Request("a", prompt=text, task="embed")])
    model: Any = transformers.AutoModel.from_pretrained(model_folder, dtype=torch.float32)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model_folder)
    with torch.no_grad():
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1]
    expected = torch.nn.functional.normalize(hidden, dim=0).tolist()
    assert found.embedding == pytest.approx(expected, abs=1e-3)


def test_other_tasks_fail_their_rows(engine: Engine) -> None:
    (found,) = engines.run(engine, [Request("a", prompt="x")])
    assert found.error is not None
    assert "embed" in found.error
