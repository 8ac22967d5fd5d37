"""Counts: exact against the libraries' own, chunked the same as whole, sources of every kind, and what is left out."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from michelangelo import errors
from michelangelo.llm.tokens import counting, sources, splitting, tokenizers

TEXT = st.lists(
    st.sampled_from(
        [
            "\n",
            "\r\n",
            " ",
            "  ",
            "\t",
            "/",
            ";",
            "a",
            "Zeit",
            "don't",
            "'S",
            "42",
            "1234",
            "é",
            "日本",
            "\n\n",
            "x.y",
            "“",
            "🙂",
        ]
    )
    | st.text(max_size=4),
    max_size=60,
).map("".join)


@settings(max_examples=40, deadline=None)
@given(
    text=TEXT, size=st.integers(1, 12), name=st.sampled_from(["cl100k_base", "o200k_base", "llama3", "tekken_240911"])
)
def test_parts_have_the_tokens_of_the_whole(text: str, size: int, name: str) -> None:
    chosen = tokenizers.load(name)
    cut = list(splitting.parts([text[:7], text[7:]], size, longest=10_000))
    assert "".join(part for part, _ in cut) == text
    assert all(is_safe for _, is_safe in cut)
    assert sum(chosen.count_exact(part) for part, _ in cut) == chosen.count_exact(text)


def test_a_place_that_is_no_safe_one_is_said() -> None:
    cut = list(splitting.parts(["x" * 100], 10, longest=40))
    assert [(len(text), is_safe) for text, is_safe in cut] == [(40, False), (40, False), (20, True)]


def test_openai_counts_are_those_of_the_library() -> None:
    text = "Straße 12345 — don't\n\n  def f(x):\n\treturn 日本語 <|endoftext|>"
    made = counting.count(text, "gpt-4o-mini")
    # Imported after ours has: its first import warns of its own loader.
    library = importlib.import_module("bpe_openai")
    expected = len(library.get_encoding("o200k_base").encode_ordinary(text))
    assert (made.tokens, made.low, made.high, made.is_exact) == (expected, expected, expected, True)


@pytest.mark.parametrize(
    ("model", "tokenizer"),
    [
        ("gpt-5-mini", "o200k_base"),
        ("openai/gpt-4.1", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3"),
        ("llama-4-scout", "llama4"),
        ("mistral-small-2503", "tekken_240911"),
    ],
)
def test_a_model_has_its_tokenizer(model: str, tokenizer: str) -> None:
    assert counting.count("hello", model).tokenizer == tokenizer


def test_an_unpublished_tokenizer_gives_an_interval_wider_for_other_scripts() -> None:
    latin = counting.count("The quick brown fox jumps over the lazy dog. " * 20, "claude-sonnet-4-5")
    other = counting.count("Все люди рождаются свободными и равными. " * 20, "anthropic.claude-3-haiku")
    assert not latin.is_exact
    assert latin.low < latin.tokens < latin.high
    assert other.high / other.low > latin.high / latin.low


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(errors.PricingError, match="did you mean gpt-4o"):
        counting.count("x", "gtp-4o")


def test_a_local_tokenizer_json_is_exact(tmp_path: Path) -> None:
    made = hf.Tokenizer(models.BPE(unk_token=None))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(["low lower lowest"] * 5, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    made.save(str(tmp_path / "tokenizer.json"))
    text = "low lowest flow"
    result = counting.count(text, str(tmp_path))
    assert result.is_exact
    assert result.tokens == len(made.encode(text).ids)
    (tmp_path / "tokenizer.json").write_text("{")
    tokenizers.load.cache_clear()
    with pytest.raises(errors.PricingError, match=r"no tokenizer\.json that can be read"):
        counting.count(text, str(tmp_path))


def test_lone_surrogates_are_counted() -> None:
    assert counting.count("a\ud800b", "gpt-4o").tokens >= 2


def _count(paths: list[str], processes: int = 1, column: str = "") -> tuple[list[counting.Counted], sources.Problems]:
    problems = sources.Problems()
    items = sources.items(paths, problems, column=column)
    return list(counting.count_items(items, "gpt-4o", num_processes=processes)), problems


def test_a_folder_is_read_as_git_sees_it(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*.log\n/build/\n!keep.log\n")
    (tmp_path / "sub" / "build").mkdir(parents=True)
    (tmp_path / "build").mkdir()
    for name in ("a.txt", "b.log", "keep.log", "build/x.txt", "sub/build/y.txt", "sub/z.log"):
        (tmp_path / name).write_text("hello world")
    (tmp_path / "sub" / ".gitignore").write_text("!z.log\n")
    (tmp_path / "c.bin").write_bytes(b"ab\0cd")
    (tmp_path / "d.txt").write_bytes(b"caf\xe9 is no UTF-8 here, at all")
    made, problems = _count([str(tmp_path)])
    names = {Path(one.name).relative_to(tmp_path).as_posix() for one in made}
    assert names == {".gitignore", "a.txt", "keep.log", "sub/.gitignore", "sub/build/y.txt", "sub/z.log"}
    assert problems.skipped == 2
    assert any("binary" in text for text in problems.shown)
    inner, _ = _count([str(tmp_path / "sub")])
    assert {Path(one.name).name for one in inner} == {".gitignore", "y.txt", "z.log"}


def test_rows_are_counted_and_bad_ones_listed(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    lines = [
        '{"prompt": "hello world"}',
        "{",
        "[1]",
        json.dumps(chat),
        '{"messages": [{"role": "king"}]}',
        '{"n": 1}',
        "",
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    made, problems = _count([str(tmp_path / "rows.jsonl")])
    assert made[0].rows == 2
    assert made[0].row_tokens == (2, 8)
    assert problems.malformed == 4
    assert any("king" in text for text in problems.shown)
    assert ":2: " in problems.shown[0]


def test_parquet_columns_are_counted(tmp_path: Path) -> None:
    table = pyarrow.table({"q": ["hello world", None, "hello"]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    made, problems = _count([str(tmp_path / "rows.parquet")], column="q")
    assert (made[0].rows, made[0].count.tokens, problems.malformed) == (2, 3, 1)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(errors.PricingError, match="no Parquet file"):
        _count([str(tmp_path / "bad.parquet")])


def test_standard_input_is_a_source() -> None:
    items = sources.items(["-"], sources.Problems(), stdin=io.StringIO("hello world"))
    assert next(counting.count_items(items, "gpt-4o")).count.tokens == 2


def test_a_binary_file_that_is_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0\1")
    with pytest.raises(errors.PricingError, match="a binary file"):
        _count([str(tmp_path / "x.bin")])
    with pytest.raises(errors.PricingError, match="no such file"):
        _count([str(tmp_path / "none")])


def test_a_long_text_is_marked_as_estimated_only_where_it_was_cut_blindly(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words\n" * 200_000)
    made, _ = _count([str(tmp_path / "a.txt")])
    assert made[0].count.is_exact
    assert made[0].count.tokens == 3 * 200_000


@pytest.mark.slow
def test_processes_count_what_one_counts(tmp_path: Path) -> None:
    line = "def f(x): return 'some words, 123' + x\n\n"
    (tmp_path / "a.txt").write_text(line * 150_000)
    (tmp_path / "b.jsonl").write_text('{"text": "hello world"}\n' * 1000)
    paths = [str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")]
    assert _count(paths, processes=2)[0] == _count(paths)[0]
