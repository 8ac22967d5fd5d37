"""Files of rows, opened data and what came out of it, as tests of data need them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from michelangelo.llm.finetune.batch import Batch, PreferenceBatch
from michelangelo.llm.finetune.config import DataConfig, SourceConfig
from michelangelo.llm.finetune.data import opening
from michelangelo.llm.finetune.data.prefetching import PrefetchedBatches
from michelangelo.llm.training_setup import Objective

WORDS = [
    "for",
    "each",
    "thing",
    "that",
    "is",
    "said",
    "there",
    "is",
    "an",
    "assert",
    "which",
    "says",
    "that",
    "it",
    "is",
    "not",
    "so",
    "in",
    "a",
    "loop",
    "of",
    "names",
    "and",
    "lists",
]


def sentence(number: int, *, longest: int = 30) -> str:
    """Some words, and the number, so that no two are the same."""
    chance = random.Random(number)
    return " ".join(chance.choices(WORDS, k=chance.randint(1, longest))) + f" {number}."


def text_rows(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": sentence(number)} for number in range(start, start + count)]


def answer_rows(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"prompt": sentence(number, longest=5), "completion": " " + sentence(number)}
        for number in range(start, start + count)
    ]


def pair_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": sentence(number, longest=5), "chosen": f" yes {sentence(number)}", "rejected": f" no {number}"}
        for number in range(count)
    ]


def write(path: Path, rows: Iterable[Mapping[str, Any] | bytes]) -> Path:
    """JSON lines; bytes as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def config_of(*paths: Path | str | SourceConfig, **changes: Any) -> DataConfig:
    sources = tuple(path if isinstance(path, SourceConfig) else SourceConfig(path=str(path)) for path in paths)
    return DataConfig(train=sources, **{"sequence_length": 64, **changes})


def opened(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    objective: Objective = "sft",
    *,
    micro_batch: int = 2,
    rank: int = 0,
    world: int = 1,
) -> opening.OpenedData:
    return opening.open_data(
        config,
        objective=objective,
        tokenizer=tokenizer,
        micro_batch=micro_batch,
        data_rank=rank,
        data_parallel=world,
        vocab_size=len(tokenizer),
    )


def rest(batches: PrefetchedBatches, limit: int = 10**9) -> list[Batch | PreferenceBatch]:
    """The next batches, to the end or the limit."""
    found: list[Batch | PreferenceBatch] = []
    while len(found) < limit and (batch := batches.next()) is not None:
        found.append(batch)
    return found


def rows_of(batches: Sequence[Batch | PreferenceBatch]) -> list[Any]:
    """Every row of every batch without its padding: per document (ids, labels); rows of padding left out."""
    found = []
    for batch in batches:
        for number in range(_first(batch).input_ids.shape[0]):
            if isinstance(batch, PreferenceBatch):
                row: Any = (documents(batch.chosen, number), documents(batch.rejected, number))
                is_there = bool(row[0])
            else:
                row = documents(batch, number)
                is_there = bool(row)
            if is_there:
                found.append(row)
    return found


def documents(batch: Batch, number: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Of one row; checks what every batch promises."""
    ids, labels = batch.input_ids[number].tolist(), batch.labels[number].tolist()
    positions, owners = batch.position_ids[number].tolist(), batch.document_ids[number].tolist()
    count = max(owners) + 1
    found = []
    start = 0
    for document in range(count):
        size = owners.count(document)
        assert owners[start : start + size] == [document] * size
        assert positions[start : start + size] == list(range(size))
        assert labels[start] == -100
        assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))
        found.append((tuple(ids[start : start + size]), tuple(labels[start : start + size])))
        start += size
    assert owners[start:] == [-1] * (len(owners) - start)
    assert labels[start:] == [-100] * (len(owners) - start)
    assert positions[start:] == list(range(len(owners) - start))
    return tuple(found)


def _first(batch: Batch | PreferenceBatch) -> Batch:
    return batch.chosen if isinstance(batch, PreferenceBatch) else batch
