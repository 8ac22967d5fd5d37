"""Opened data: the same rows for every number of processes and from any position on; bad input bounded and told."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.llm.finetune.data import written_rows
from tests.llm.finetune.data.written_rows import config_of, opened, rest, rows_of
from transformers import PreTrainedTokenizerBase

from michelangelo import errors
from michelangelo.llm.finetune.batch import PreferenceBatch
from michelangelo.llm.finetune.config import DataConfig, SourceConfig
from michelangelo.llm.finetune.data import batching, opening, stream
from michelangelo.llm.training_setup import Objective


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of text, one of answers, one of pairs; some rows of each are bad."""
    found = tmp_path_factory.mktemp("rows")
    bad: list[Any] = [b"{", {"body": "a"}]
    written_rows.write(found / "text-a.jsonl", [*written_rows.text_rows(60), *bad])
    written_rows.write(found / "text-b.jsonl", written_rows.text_rows(25, start=1000))
    written_rows.write(found / "answers.jsonl", [*bad, *written_rows.answer_rows(70)])
    written_rows.write(found / "pairs.jsonl", [*written_rows.pair_rows(30), *bad])
    return found


CASES: dict[str, tuple[Objective, tuple[str, ...]]] = {
    "pretrain": ("pretrain", ("text-a.jsonl", "text-b.jsonl")),
    "sft": ("sft", ("answers.jsonl", "text-b.jsonl")),
    "dpo": ("dpo", ("pairs.jsonl",)),
}


def config_for(folder: Path, names: tuple[str, ...], **changes: Any) -> DataConfig:
    sources = [SourceConfig(path=str(folder / name), weight=1.0 + number) for number, name in enumerate(names)]
    return config_of(*sources, **changes)


def group_rows(config: DataConfig, tokenizer: Any, objective: Objective, state: Any, steps: int, world: int) -> Any:
    """Rows of the next global batches in the order of ranks, and the position after them, which all ranks agree on."""
    data = [opened(config, tokenizer, objective, micro_batch=2, rank=rank, world=world) for rank in range(world)]
    for one in data:
        one.train.restore(state)
    batches = [rest(one.train, steps) for one in data]
    assert len({len(found) for found in batches}) == 1
    states = {json.dumps(one.train.state(), sort_keys=True) for one in data}
    assert len(states) == 1
    for one in data:
        one.close()
    return rows_of([batch for group in zip(*batches, strict=True) for batch in group]), json.loads(states.pop())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("streaming", [False, True])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.integers(0, 25), world=st.integers(1, 4), later=st.integers(1, 4), packing=st.booleans(),
    shuffle=st.sampled_from([0, 16, 1000]), epoch=st.integers(0, 1),
)  # fmt: skip
def test_rows_go_on_from_any_position_with_any_number_of_processes(
    case: str, streaming: bool, folder: Path, tokenizer: PreTrainedTokenizerBase, steps: int, world: int, later: int,
    packing: bool, shuffle: int, epoch: int,
) -> None:  # fmt: skip
    objective, names = CASES[case]
    config = config_for(folder, names, streaming=streaming, packing=packing, shuffle_buffer=shuffle)
    whole, _ = group_rows(config, tokenizer, objective, {"epoch": epoch}, 10**9, 1)
    first, state = group_rows(config, tokenizer, objective, {"epoch": epoch}, steps, world)
    second, _ = group_rows(config, tokenizer, objective, state, 10**9, later)
    assert first + second == whole
    assert state["epoch"] == epoch


@pytest.mark.parametrize("streaming", [False, True])
def test_pass_has_every_token_of_every_document_once(
    folder: Path, tokenizer: PreTrainedTokenizerBase, streaming: bool
) -> None:
    config = config_of(folder / "text-a.jsonl", streaming=streaming)
    data = opened(config, tokenizer, "pretrain")
    rows = rows_of(rest(data.train))
    data.close()
    text = tokenizer.decode([token for row in rows for ids, _ in row for token in ids])
    expected = Counter(row["text"] for row in written_rows.text_rows(60))
    # Rows are in the order of the stream, so that documents which were cut join again.
    assert Counter(str(text).split("</s>")[:-1]) == expected


def test_documents_of_answers_are_never_cut(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = opened(config_of(folder / "answers.jsonl", sequence_length=512), tokenizer)
    documents = [tokenizer.decode(list(ids)) for row in rows_of(rest(data.train)) for ids, _ in row]
    data.close()
    expected = [row["prompt"] + row["completion"] + "</s>" for row in written_rows.answer_rows(70)]
    assert Counter(documents) == Counter(expected)
    assert data.report.packing_efficiency > 0.8


def test_next_pass_has_the_same_documents_in_another_order(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = opened(config_of(folder / "answers.jsonl", sequence_length=128), tokenizer)
    first = rows_of(rest(data.train))
    assert data.train.next() is None
    data.train.next_epoch()
    second = rows_of(rest(data.train))
    assert data.train.state()["epoch"] == 1
    data.train.restore({"epoch": 0})
    assert rows_of(rest(data.train)) == first
    data.close()
    assert first != second
    assert Counter(document for row in first for document in row) == Counter(
        document for row in second for document in row
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("packing", [False, True])
def test_number_of_batches_is_known_beforehand(
    folder: Path, tokenizer: PreTrainedTokenizerBase, case: str, packing: bool
) -> None:
    objective, names = CASES[case]
    data = opened(config_for(folder, names, packing=packing), tokenizer, objective, micro_batch=3, world=2)
    expected = data.train.num_batches()
    assert expected == len(rest(data.train))
    data.close()


def test_number_of_batches_of_a_stream_is_not_known(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    assert opened(config_of(folder / "answers.jsonl", streaming=True), tokenizer).train.num_batches() is None


def test_position_is_small(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = written_rows.write(tmp_path / "a.jsonl", written_rows.answer_rows(3000))
    data = opened(config_of(file, streaming=True, sequence_length=256), tokenizer)
    rest(data.train, 100)
    size = len(json.dumps(data.train.state()))
    data.close()
    assert size < 3000


def test_pairs_are_padded_one_per_row(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = opened(config_of(folder / "pairs.jsonl", sequence_length=512), tokenizer, "dpo", micro_batch=4)
    batches = rest(data.train)
    data.close()
    assert all(isinstance(batch, PreferenceBatch) for batch in batches)
    assert all(batch.chosen.input_ids.shape[1] % 64 == 0 for batch in batches if isinstance(batch, PreferenceBatch))
    found = rows_of(batches)
    assert len(found) == 30
    chosen = {str(tokenizer.decode(list(pair[0][0][0]))) for pair in found}
    assert chosen == {row["prompt"] + row["chosen"] + "</s>" for row in written_rows.pair_rows(30)}


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_held_out_are_never_trained(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, streaming: bool) -> None:
    rows = written_rows.text_rows(300)
    file = written_rows.write(tmp_path / "a.jsonl", rows + rows[:50])
    config = config_of(file, validation_share=0.2, sequence_length=256, streaming=streaming)
    data = opened(config, tokenizer)
    assert data.validation is not None
    trained, held_out = (
        {document for row in rows_of(rest(batches)) for document in row} for batches in (data.train, data.validation)
    )
    data.close()
    assert not trained & held_out
    assert len(trained) + len(held_out) == 300
    assert 30 <= len(held_out) <= 90


def test_validation_source_is_read_in_its_order(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    validation = (SourceConfig(path=str(folder / "text-b.jsonl")),)
    data = opened(config_of(folder / "text-a.jsonl", validation=validation, packing=False), tokenizer, micro_batch=1)
    assert data.validation is not None
    found = [str(tokenizer.decode(list(row[0][0]))).removesuffix("</s>") for row in rows_of(rest(data.validation))]
    data.close()
    assert all(
        row["text"].startswith(text) for row, text in zip(written_rows.text_rows(25, start=1000), found, strict=True)
    )


def test_report_counts_what_was_handed_out(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = opened(config_of(folder / "answers.jsonl", sequence_length=128, shuffle_buffer=0), tokenizer)
    batches = rest(data.train)
    data.close()
    report = data.report
    assert report.tokens == sum(len(ids) for row in rows_of(batches) for ids, _ in row)
    assert report.trained_tokens == sum(batch.num_trained for batch in batches)
    assert report.positions == sum(batch.num_tokens for batch in batches)
    assert [(bad.line, bad.reason.split(":")[0]) for bad in report.first_bad] == [
        (1, "malformed JSON"),
        (2, "the row has no messages, prompt with completion, or text; it has body"),
    ]
    assert "BadRows" in [alert.kind for alert in report.take_alerts(3)]
    assert json.loads(json.dumps(report.to_dict()))["bad_rows"] == 2


def test_report_goes_on_where_the_position_was(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = config_of(folder / "answers.jsonl", sequence_length=128)
    whole, parts = opened(config, tokenizer), opened(config, tokenizer)
    rest(whole.train)
    rest(parts.train, 3)
    state = parts.train.state()
    parts.train.restore(state)
    rest(parts.train)
    whole.close()
    parts.close()
    assert whole.report.counts() == parts.report.counts()


# --- bad input -----------------------------------------------------------------------------------------------


def fails(config: DataConfig, tokenizer: Any, objective: Objective = "sft") -> str:
    with pytest.raises(errors.DatasetError) as caught, contextlib.closing(opened(config, tokenizer, objective)) as data:
        rest(data.train)
    return caught.value.message


def test_too_many_bad_rows_stop_with_the_first_ones(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows: list[Any] = [*written_rows.text_rows(500), *[b"{"] * 12]
    file = written_rows.write(tmp_path / "a.jsonl", rows)
    message = fails(config_of(file, max_bad_rows=11, max_bad_share=1.0), tokenizer)
    assert "data.max_bad_rows is 11" in message
    assert f"{file}:5" in message
    assert message.count("malformed JSON") == 5
    assert "data.max_bad_share is 0.01" in fails(config_of(file, max_bad_share=0.01), tokenizer)
    data = opened(config_of(file), tokenizer)
    assert rest(data.train)
    data.close()


def test_one_bad_row_among_few_does_not_stop(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows: list[Any] = [b"{", *written_rows.text_rows(3)]
    file = written_rows.write(tmp_path / "a.jsonl", rows)
    data = opened(config_of(file, shuffle_buffer=0), tokenizer)
    assert rest(data.train)
    data.close()
    assert data.report.bad_rows == 1
    assert "data.max_bad_share is 0" in fails(config_of(file, max_bad_share=0.0), tokenizer)


@pytest.mark.parametrize("streaming", [False, True])
def test_data_without_a_usable_row_says_why(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, streaming: bool
) -> None:
    file = written_rows.write(tmp_path / "a.jsonl", [{"body": "a"}])
    assert f"{file}:1: the row has no messages" in fails(config_of(file, streaming=streaming), tokenizer)
    long = written_rows.write(tmp_path / "b.jsonl", [{"text": "for each name " * 50}])
    assert "raise data.sequence_length" in fails(config_of(long, long_samples="drop", streaming=streaming), tokenizer)
    assert "there are no rows" in fails(config_of(long, validation_share=1.0, streaming=streaming), tokenizer)


def test_pairs_cannot_be_split(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    assert "choose truncate or drop" in fails(config_of(folder / "pairs.jsonl", long_samples="split"), tokenizer, "dpo")


def test_position_of_other_data_is_refused(tmp_path: Path, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = opened(config_of(folder / "answers.jsonl"), tokenizer)
    rest(data.train, 2)
    state = data.train.state()
    data.close()
    for config, changed in (
        (config_of(folder / "text-a.jsonl"), "the files"),
        (config_of(folder / "answers.jsonl", sequence_length=128), "the settings of data"),
    ):
        with pytest.raises(errors.CheckpointError, match=changed):
            opened(config, tokenizer).train.restore(state)
    with pytest.raises(errors.CheckpointError, match="malformed"):
        opened(config_of(folder / "answers.jsonl"), tokenizer).train.restore({"step": 3})
    moved = tmp_path / "answers.jsonl"
    moved.write_bytes((folder / "answers.jsonl").read_bytes())
    opened(config_of(moved), tokenizer).train.restore(state)


def test_error_while_reading_ahead_comes_with_the_batch(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = written_rows.write(tmp_path / "a.jsonl", written_rows.text_rows(50))
    data = opened(config_of(file, streaming=True), tokenizer)
    file.unlink()
    with pytest.raises(errors.DatasetError, match="cannot be read"):
        data.train.next()
    data.close()


def test_unknown_field_names_are_refused_before_a_run(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with pytest.raises(errors.DatasetError, match="there is no such file"):
        opening.open_data(config_of(tmp_path / "none.jsonl"), objective="sft", tokenizer=tokenizer, micro_batch=1)


def test_number_of_batches_of_many_rows_is_estimated(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_COUNTED_ROWS", 1000)
    file = written_rows.write(tmp_path / "a.jsonl", written_rows.text_rows(8000))
    data = opened(config_of(file, sequence_length=128), tokenizer)
    estimate = data.train.num_batches()
    assert estimate == pytest.approx(len(rest(data.train)), rel=0.05)
    data.close()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_go_on_from_every_single_position(
    folder: Path, tokenizer: PreTrainedTokenizerBase, case: str, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows of a few rows, so that many positions are at the border of two.
    monkeypatch.setattr(stream, "_LEAST_WINDOW_ROWS", 3)
    monkeypatch.setattr(stream, "_WINDOW_ROWS", 3)
    monkeypatch.setattr(stream, "_CHUNK_ROWS", 5)
    objective, names = CASES[case]
    data = opened(config_for(folder, names, streaming=streaming, shuffle_buffer=20), tokenizer, objective)
    states, batches = [data.train.state()], []
    while (batch := data.train.next()) is not None:
        batches.append(batch)
        states.append(data.train.state())
    assert len(batches) > 10
    for number, state in enumerate(states):
        data.train.restore(json.loads(json.dumps(state)))
        assert rows_of(rest(data.train)) == rows_of(batches[number:])
    data.close()


def test_share_that_holds_out_nothing_evaluates_nothing(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = opened(config_of(folder / "answers.jsonl", validation_share=1e-9), tokenizer)
    assert data.validation is not None
    assert data.validation.next() is None
    assert data.train.next() is not None
    data.close()


def test_training_and_validation_are_read_at_the_same_time(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    file = written_rows.write(tmp_path / "a.jsonl", written_rows.answer_rows(2000))
    data = opened(config_of(file, validation_share=0.5), tokenizer)
    assert data.validation is not None
    found = [(data.train.next(), data.validation.next()) for _ in range(200)]
    data.close()
    assert all(train is not None and held_out is not None for train, held_out in found)
