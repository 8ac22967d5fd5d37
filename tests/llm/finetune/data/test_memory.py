"""Streams of any size in bounded memory: what the process holds does not grow with the file."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from tests.llm.finetune.data.written_rows import config_of, opened
from transformers import PreTrainedTokenizerBase

SHORT = b'{"text": "an assert"'
MIB = 2**20


def write(path: Path, *, rows: int, row_bytes: int) -> Path:
    """Rows with a long field that is not used: it would be seen if they were held."""
    line = SHORT + b', "unused": "' + b"x" * row_bytes + b'"}\n'
    with path.open("wb") as out:
        for _ in range(rows):
            out.write(line)
    return path


def grown(file: Path, tokenizer: PreTrainedTokenizerBase, rows: int, block: int) -> float:
    """MiB by which the process grew at most while it read a stream to its end."""
    config = config_of(file, streaming=True, shuffle_buffer=block, sequence_length=2048)
    data = opened(config, tokenizer, "pretrain")
    process = psutil.Process()
    start = most = process.memory_info().rss
    try:
        while data.train.next() is not None:
            most = max(most, process.memory_info().rss)
    finally:
        data.close()
    assert data.report.rows == rows
    return (most - start) / MIB


@pytest.mark.slow
def test_stream_of_many_rows_holds_a_block_of_them(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = write(tmp_path / "a.jsonl", rows=100_000, row_bytes=2000)
    assert file.stat().st_size > 190 * MIB
    assert grown(file, tokenizer, 100_000, 1000) < 100


def test_stream_of_long_rows_ends_its_blocks_early(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = write(tmp_path / "a.jsonl", rows=160, row_bytes=4 * MIB)
    assert grown(file, tokenizer, 160, 10_000) < 500
