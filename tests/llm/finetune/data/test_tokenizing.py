"""From rows to tokens: what is trained decodes to what was to be learned, for tokenizers of several kinds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llm.finetune.data import written_rows
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from michelangelo import errors
from michelangelo.llm.finetune.data.report import DataReport
from michelangelo.llm.finetune.data.rows import Pair, Row, Sample
from michelangelo.llm.finetune.data.tokenizing import Tokenizing
from michelangelo.llm.training_setup import Objective

EOS = 2


def trained_with(kind: str) -> PreTrainedTokenizerFast:
    """BPE as Llama 3 has it (ranges without blanks, BOS), and as Llama 2 (a blank in front of a text)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if kind == "metaspace" else None))
    specials = ["<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>"]
    trainer: Any = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=specials,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    tokenizer.train_from_iterator([written_rows.sentence(number) for number in range(300)], trainer)
    bos = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    trimmed = processors.ByteLevel(trim_offsets=True)
    tokenizer.post_processor = bos if kind == "metaspace" else processors.Sequence([trimmed, bos])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="module", params=["byte level", "metaspace"])
def other_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return trained_with(request.param)


def units_of(
    tokenizer: PreTrainedTokenizerBase, objective: Objective, *fields: dict[str, Any], **changes: Any
) -> tuple[list[Any], DataReport]:
    vocab_size = changes.pop("vocab_size", 0)
    report = DataReport()
    config = written_rows.config_of("a.jsonl", **{"sequence_length": 4096, **changes})
    tokenizing = Tokenizing(tokenizer, config, objective, vocab_size=vocab_size)
    rows = [Row(row, "fields", "a.jsonl", number) for number, row in enumerate(fields, 1)]
    return tokenizing.units(rows, report), report


def texts(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> tuple[str, str]:
    """Everything, and what is trained."""
    return str(tokenizer.decode(sample.ids.tolist())), str(tokenizer.decode(sample.ids[sample.trained].tolist()))


def test_document_ends_with_eos_and_is_trained_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    (sample,), _ = units_of(tokenizer, "pretrain", {"text": "an assert in a loop"})
    assert texts(tokenizer, sample) == ("an assert in a loop</s>", "an assert in a loop</s>")


def test_completion_is_trained_and_its_prompt_is_not(tokenizer: PreTrainedTokenizerBase) -> None:
    (sample,), _ = units_of(tokenizer, "sft", {"prompt": "is it so?", "completion": " it is"})
    assert texts(tokenizer, sample) == ("is it so? it is</s>", " it is</s>")
    (sample,), _ = units_of(tokenizer, "sft", {"prompt": "a", "completion": "b"}, completion_only=False)
    assert texts(tokenizer, sample) == ("ab</s>", "ab</s>")


def test_answers_of_a_chat_are_trained_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [
        {"role": "user", "content": "is it so?"},
        {"role": "assistant", "content": "it is"},
        {"role": "user", "content": "not?"},
        {"role": "assistant", "content": "no"},
    ]
    (sample,), _ = units_of(tokenizer, "sft", {"messages": messages})
    assert texts(tokenizer, sample)[1] == "it is</s>no</s>"
    (pair,), _ = units_of(
        tokenizer,
        "dpo",
        {"prompt": messages[:3], "chosen": messages[3:], "rejected": [{**messages[3], "content": "yes"}]},
    )
    assert isinstance(pair, Pair)
    assert texts(tokenizer, pair.chosen)[1] == "no</s>"
    assert texts(tokenizer, pair.rejected)[1] == "yes</s>"


TEXT = st.text(alphabet=st.sampled_from("asert lopin. \n\té"), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=80)
@given(TEXT, TEXT)
def test_what_is_trained_of_a_chat_decodes_to_the_answer(
    tokenizer: PreTrainedTokenizerBase, question: str, answer: str
) -> None:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    (sample,), _ = units_of(tokenizer, "sft", {"messages": messages})
    assert texts(tokenizer, sample) == (f"<|user|>{question}<|assistant|>{answer}</s>", f"{answer}</s>")


@settings(max_examples=80)
@given(TEXT, TEXT)
def test_what_is_trained_of_a_chat_is_the_answer_where_ranges_leave_out_blanks(question: str, answer: str) -> None:
    byte_level = _byte_level()
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    (sample,), _ = units_of(byte_level, "sft", {"messages": messages}, chat_template=template)
    assert texts(byte_level, sample) == (f"<|user|>{question}<|assistant|>{answer}</s>", f"{answer}</s>")


_made: dict[str, PreTrainedTokenizerFast] = {}


def _byte_level() -> PreTrainedTokenizerFast:
    if not _made:
        _made["byte level"] = trained_with("byte level")
    return _made["byte level"]


def test_prompts_of_other_tokenizers_begin_with_bos_and_keep_their_text(
    other_tokenizer: PreTrainedTokenizerFast,
) -> None:
    (sample,), _ = units_of(other_tokenizer, "sft", {"prompt": "is that so.", "completion": "it is not"})
    assert sample.ids[0] == 1
    assert sample.ids.tolist().count(1) == 1
    whole, trained = texts(other_tokenizer, sample)
    assert whole.replace("<s>", "").lstrip() == "is that so.it is not</s>"
    assert trained.strip() == "it is not</s>"


def test_long_samples_are_cut_split_or_left_out(tokenizer: PreTrainedTokenizerBase) -> None:
    fields = {"text": "for each name in a list of names " * 20}
    whole, _ = units_of(tokenizer, "sft", fields)
    ids = whole[0].ids.tolist()
    cut, report = units_of(tokenizer, "sft", fields, sequence_length=64)
    assert [unit.ids.tolist() for unit in cut] == [ids[:64]]
    assert (report.num_truncated, report.samples) == (1, 1)
    split, report = units_of(tokenizer, "sft", fields, sequence_length=64, long_samples="split")
    assert [token for unit in split for token in unit.ids.tolist()] == ids
    assert report.num_split == 1
    dropped, report = units_of(tokenizer, "sft", fields, sequence_length=64, long_samples="drop")
    assert (dropped, report.num_dropped) == ([], 1)


def test_answer_that_is_cut_off_whole_is_told(tokenizer: PreTrainedTokenizerBase) -> None:
    fields = {"prompt": "for each name in a list of names " * 20, "completion": "yes"}
    found, report = units_of(tokenizer, "sft", fields, sequence_length=64)
    assert (found, report.num_truncated, report.num_untrained) == ([], 1, 1)
    assert [alert.kind for alert in report.take_alerts(0)] == ["LongSamples", "UntrainedSamples"]
    assert report.take_alerts(0) == []


def test_tokenizer_of_another_model_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(errors.ModelError, match="knows only 0 … 99: they do not belong together"):
        units_of(tokenizer, "sft", {"text": "zebra éßø"}, vocab_size=100)
    with pytest.raises(errors.ModelError, match="the eos token of the tokenizer is 2"):
        units_of(tokenizer, "sft", {"text": "a"}, vocab_size=2)


def test_tokenizer_without_special_tokens_is_used_and_told(tokenizer: PreTrainedTokenizerBase) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.eos_token = None
    bare.pad_token = None
    (sample,), _ = units_of(bare, "pretrain", {"text": "an assert"})
    assert EOS not in sample.ids
    tokenizing = Tokenizing(bare, written_rows.config_of("a"), "pretrain")
    assert tokenizing.pad_id == 0
    assert "no EOS token" in tokenizing.notes()[0]


def test_messages_without_a_chat_template_say_what_to_do(tokenizer: PreTrainedTokenizerBase) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(errors.DatasetError, match="has no chat template"):
        units_of(bare, "sft", {"messages": messages})


def test_bad_rows_are_counted_and_the_others_used(tokenizer: PreTrainedTokenizerBase) -> None:
    found, report = units_of(tokenizer, "sft", {"text": "good"}, {"text": ""}, {"body": "a"}, {"text": "good, too"})
    assert [texts(tokenizer, unit)[0] for unit in found] == ["good</s>", "good, too</s>"]
    assert str(report.first_bad[0]) == "a.jsonl:2: text is empty"
    assert (report.rows, report.bad_rows, report.samples) == (4, 2, 2)
