"""Counts for a plan: exact when all rows are read, near when some are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tests.llm.finetune.data import written_rows
from tests.llm.finetune.data.written_rows import config_of, opened, rest
from transformers import PreTrainedTokenizerBase

from michelangelo import errors
from michelangelo.llm.finetune.data import statistics


@pytest.mark.parametrize("streaming", [False, True])
def test_count_of_all_rows_is_what_a_run_trains(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, streaming: bool
) -> None:
    file = written_rows.write(tmp_path / "a.jsonl", [*written_rows.answer_rows(200), b"{"])
    config = config_of(file, sequence_length=1024, streaming=streaming)
    found = statistics.count(config, tokenizer, 0)
    data = opened(config, tokenizer)
    rest(data.train)
    data.close()
    assert (found.rows, found.rows_read, found.bad_rows, found.is_exact) == (201, 201, 1, True)
    assert (found.tokens, found.trained_tokens) == (data.report.tokens, data.report.trained_tokens)
    assert found.packing_efficiency == pytest.approx(data.report.packing_efficiency, abs=0.1)
    assert found.lengths["p5"] <= found.lengths["p50"] <= found.lengths["p99"] <= found.lengths["max"]
    assert json.loads(json.dumps(found.to_dict()))["rows"] == 201


@pytest.mark.parametrize("streaming", [False, True])
def test_count_of_some_rows_is_near_that_of_all(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, streaming: bool
) -> None:
    config = config_of(written_rows.write(tmp_path / "a.jsonl", written_rows.answer_rows(2000)), streaming=streaming)
    whole, part = (statistics.count(config, tokenizer, limit) for limit in (0, 500))
    assert (part.rows_read, part.is_exact) == (500, False)
    assert part.tokens == pytest.approx(whole.tokens, rel=0.1)
    assert part.rows == pytest.approx(2000, rel=0.1)
    assert part.mean_length == pytest.approx(whole.mean_length, rel=0.1)
    assert part.long_share == pytest.approx(whole.long_share, abs=0.1)


def test_count_of_a_compressed_stream_says_that_the_whole_is_not_known(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in written_rows.text_rows(1000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    found = statistics.count(config_of(tmp_path / "a.jsonl.gz", streaming=True), tokenizer, 300)
    assert (found.rows, found.tokens, found.is_exact) == (None, None, False)
    assert found.mean_length > 0


def test_count_of_pairs_is_of_both_answers(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = written_rows.write(tmp_path / "a.jsonl", written_rows.pair_rows(50))
    config = config_of(file, sequence_length=512)
    found = statistics.count(config, tokenizer, objective="dpo")
    data = opened(config, tokenizer, "dpo")
    rest(data.train)
    data.close()
    assert found.tokens == data.report.tokens


def test_count_of_unusable_rows_fails_as_a_run_would(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = written_rows.write(tmp_path / "a.jsonl", [{"body": "a"}] * 3)
    with pytest.raises(errors.DatasetError, match="max_bad_share"):
        statistics.count(config_of(file), tokenizer)
