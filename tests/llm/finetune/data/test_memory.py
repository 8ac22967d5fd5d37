"""Streams of any size in bounded memory: what Python holds does not grow with the file."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

from tests.llm.finetune.data.written_rows import config_of, opened
from transformers import PreTrainedTokenizerBase

NUM_ROWS = 100_000
SHORT = b'{"text": "an assert"}\n'


def test_stream_of_many_rows_holds_a_block_of_them(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = tmp_path / "a.jsonl"
    # Rows of 2 kB of which one field is not used: 200 MB that would be seen if they were held.
    line = SHORT[:-2] + b', "unused": "' + b"x" * 2000 + b'"}\n'
    with file.open("wb") as out:
        for _ in itertools.repeat(None, NUM_ROWS // 1000):
            out.write(line * 1000)
    data = opened(config_of(file, streaming=True, shuffle_buffer=1000, sequence_length=2048), tokenizer, "pretrain")
    tracemalloc.start()
    try:
        tokens = 0
        while (batch := data.train.next()) is not None:
            tokens += batch.num_trained
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        data.close()
    assert data.report.rows == NUM_ROWS
    assert tokens > NUM_ROWS
    assert peak < 40 * 2**20, f"{peak / 2**20:.0f} MiB"


def test_stream_of_long_rows_ends_its_blocks_early(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = tmp_path / "a.jsonl"
    line = SHORT[:-2] + b', "unused": "' + b"x" * 4 * 2**20 + b'"}\n'
    with file.open("wb") as out:
        for _ in range(150):
            out.write(line)
    data = opened(config_of(file, streaming=True), tokenizer, "pretrain")
    tracemalloc.start()
    try:
        while data.train.next() is not None:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        data.close()
    assert data.report.rows == 150
    assert peak < 400 * 2**20, f"{peak / 2**20:.0f} MiB"
