"""The main job: real text, a real tokenizer, a real model, Ray; small here, as large as `make run` in CI.

Its parts are tested here by what they promise; the whole is in test_tiny_llm_job.py.
"""

from __future__ import annotations

import importlib
import math
import random
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import tiny_llm_jobs as jobs

from michelangelo import errors

MODULES = ("data", "evaluate", "finetune", "model", "page", "pipeline", "report", "score", "tokenizer")


@pytest.fixture(scope="module")
def example(checkout: Path) -> Iterator[types.SimpleNamespace]:
    """The modules of the example, as its own program imports them."""
    folder = str(checkout / "examples" / "tiny_llm")
    hidden = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, folder)
    yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(folder)
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(hidden)


@pytest.fixture(scope="module")
def corpus(example: types.SimpleNamespace) -> tuple[list[Any], dict[str, str]]:
    """The cleaned text and the split of each topic, before repeated paragraphs are dropped."""
    blocks = [block for topic, raw in example.data.topics().items() for block in example.data.parse(topic, raw)]
    return blocks, example.data.assign(blocks, example.data.DataConfig())


@pytest.fixture(scope="module")
def learnt(example: types.SimpleNamespace, corpus: tuple[list[Any], dict[str, str]]) -> Any:
    """A tokenizer of the text."""
    texts = [block.document for block in corpus[0]]
    return example.tokenizer.train(texts, example.tokenizer.TokenizerConfig(vocabulary=600))


# --- text -------------------------------------------------------------------------------------------------


def test_text_is_prose_without_grammar_code_and_rules(corpus: tuple[list[Any], dict[str, str]]) -> None:
    lines = [line for block in corpus[0] for line in block.text.split("\n")]
    assert sum(map(len, lines)) > 250_000
    assert not [line for line in lines if "::=" in line or ">>>" in line or re.search(r"[*=~-]{5}", line)]
    assert not [line for line in lines if "  " in line or line != line.strip()]


def test_held_out_topics_share_nothing_with_training(
    example: types.SimpleNamespace, corpus: tuple[list[Any], dict[str, str]]
) -> None:
    blocks, splits = corpus
    texts = {split: [b.text for b in blocks if splits[b.topic] == split] for split in example.data.SPLITS}
    assert example.data.overlap(texts["train"], texts["test"] + texts["validation"]) == 0
    assert example.data.overlap(texts["validation"], texts["test"]) == 0
    sizes = {split: sum(map(len, text)) for split, text in texts.items()}
    assert 0.05 < sizes["test"] / sum(sizes.values()) < 0.2
    assert 0.02 < sizes["validation"] / sum(sizes.values()) < 0.1


def test_overlap_finds_copied_text(example: types.SimpleNamespace) -> None:
    words = [f"w{chr(97 + n)}" for n in range(26)]
    assert example.data.overlap([" ".join(words)], [" ".join(words[3:20])]) == 1
    assert example.data.overlap([" ".join(words)], [" ".join(reversed(words))]) == 0


def test_parse_tells_headings_entries_and_grammar_apart(example: types.SimpleNamespace) -> None:
    raw = (
        'The "try" statement\n*******************\n\n   try_stmt ::= "try" suite\n\n'
        "It specifies excep-\ntion handlers for a group of statements. More follows here.\n\n"
        "object.__len__(self)\n\n   Called to implement the built-in function of that name.\n\n"
        "The text goes on for everyone here.\n"
    )
    blocks = example.data.parse("try", raw)
    assert [(one.title, one.signature) for one in blocks] == [
        ('The "try" statement', ""),
        ('The "try" statement', "object.__len__(self)"),
        ('The "try" statement', ""),
    ]
    assert blocks[0].text == "It specifies excep-tion handlers for a group of statements. More follows here."
    questions = list(example.data.questions(blocks))
    assert questions[0].answer == blocks[0].text.removesuffix(" More follows here.") + " More follows here."
    assert questions[1].question == "What does object.__len__(self) do?"


@given(text=st.text(max_size=200))
def test_tokenizer_gives_every_text_back(example: types.SimpleNamespace, learnt: Any, text: str) -> None:
    # The end mark is a token of its own, not text.
    text = text.replace(example.tokenizer.END, "")
    assert learnt.decode(learnt.encode(text).ids) == text


# --- training ---------------------------------------------------------------------------------------------


def test_learning_rate_warms_up_and_falls_to_a_tenth(example: types.SimpleNamespace) -> None:
    config = example.model.TrainConfig(learning_rate=1.0, steps=100, warmup_share=0.1)
    rates = [example.model.learning_rate(step, config) for step in range(1, 101)]
    assert rates[9] == max(rates) == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)


def test_only_answers_are_learnt_from(example: types.SimpleNamespace, learnt: Any) -> None:
    pairs = [("What is it?", "A thing."), ("What does a much longer question ask?", "Nothing at all.")]
    made = example.finetune.examples(learnt, pairs, context=64)
    batch = example.finetune.batch_of(made, pad=0)
    for row, (question, answer) in enumerate(pairs):
        labels = [token for token in batch["labels"][row].tolist() if token != example.finetune.IGNORED]
        assert labels[-1] == example.tokenizer.end_of(learnt)
        assert learnt.decode(labels[:-1]) == f" {answer}"
        seen = batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()
        assert learnt.decode(seen[:-1]) == f"{example.finetune.prompt(question)} {answer}"


# --- measuring --------------------------------------------------------------------------------------------


def test_unigram_is_add_one_smoothing(example: types.SimpleNamespace, learnt: Any) -> None:
    held_out = example.evaluate.HeldOut(["ab"], [("What is it?", "A thing.")])
    train = learnt.encode("a").ids * 3
    text = example.evaluate.of_unigram(train, learnt, held_out, context=64)[0]
    total = 3 + learnt.get_vocab_size()
    ids = [*learnt.encode("ab").ids, example.tokenizer.end_of(learnt)]
    nats = -sum(math.log((1 + 3 * (one == train[0])) / total) for one in ids)
    assert text.loss == pytest.approx(nats / len(ids))
    assert text.bits_per_byte == pytest.approx(nats / math.log(2) / 3)
    assert text.perplexity == pytest.approx(math.exp(nats / len(ids)))


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), shift=st.floats(0.5, 3))
def test_gain_holds_for_what_is_better_everywhere(example: types.SimpleNamespace, seed: int, shift: float) -> None:
    draw = random.Random(seed)
    counts = [draw.randint(1, 50) for _ in range(20)]
    losses = [draw.uniform(1, 9) * count for count in counts]
    worse = example.evaluate.Evaluation("b", "text", sum(losses) / sum(counts), 0, 0, 0, losses, counts)
    lower = [loss - shift * count for loss, count in zip(losses, counts, strict=True)]
    better = example.evaluate.Evaluation("a", "text", sum(lower) / sum(counts), 0, 0, 0, lower, counts)
    gain = example.evaluate.compare(better, worse, seed)
    assert gain.holds
    assert gain.low <= gain.nats + 1e-9
    assert gain.nats <= gain.high + 1e-9
    assert gain.nats == pytest.approx(shift)
    assert not example.evaluate.compare(worse, better, seed).holds
    assert not example.evaluate.compare(better, better, seed).holds


def test_report_says_so_when_something_does_not_improve(example: types.SimpleNamespace) -> None:
    def verdict(nats: float, low: float, high: float) -> str:
        return str(example.report.verdict(example.evaluate.Gain("LoRA", "trained", "answers", nats, low, high)))

    assert "LoRA beats trained by 0.200" in verdict(0.2, 0.1, 0.3)
    assert "LoRA is worse than trained by 0.200" in verdict(-0.2, -0.3, -0.1)
    assert "does not differ from trained beyond chance" in verdict(0.1, -0.1, 0.3)


# --- bad input --------------------------------------------------------------------------------------------


def test_all_wrong_parameters_are_named_at_once(example: types.SimpleNamespace) -> None:
    with pytest.raises(errors.ArgumentsError) as caught:
        example.pipeline.check(steps=0, learning_rate=float("nan"), hidden=100, temperature=0.8)
    assert [one.path for one in caught.value.errors] == ["learning_rate", "steps", "hidden"]


def test_missing_library_is_named_with_its_extra(
    example: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("peft", "ray"):
        monkeypatch.setitem(sys.modules, name, None)  # what Python itself takes for "not installed"
    with pytest.raises(errors.SettingsError, match=r"peft, ray are not installed: pip install '.*\[llm,ray\]'"):
        example.pipeline.check()


def test_wrong_flags_are_refused_before_anything_starts(checkout: Path, tmp_path: Path) -> None:
    for words, said in (
        (("--steps", "many"), "steps"),
        (("--learning-rate", "-1"), "learning_rate: is -1.0; must be from 1e-06 to 1"),
        (("--hidden", "100"), "multiple of 64"),
        (("--stepz", "3"), "--stepz"),
    ):
        result = jobs.attempt(checkout, tmp_path, *words)
        assert result.returncode == 2
        assert said in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "tiny_llm").exists()
    assert not (tmp_path / "home").exists()
