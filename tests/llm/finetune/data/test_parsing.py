"""Raw rows: what is in them, and the reason why there is nothing in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.finetune.config import DataConfig, SourceConfig
from michelangelo.llm.finetune.data import parsing
from michelangelo.llm.finetune.data.parsing import Chat, Preference, Prompted, Text
from michelangelo.llm.finetune.data.rows import Row
from michelangelo.llm.training_setup import Objective

CONFIG = DataConfig(train=(SourceConfig(path="a.jsonl"),))
USER = {"role": "user", "content": "why?"}
ASSISTANT = {"role": "assistant", "content": "so."}


def parse(data: Any, objective: Objective = "sft") -> parsing.Content:
    if isinstance(data, dict):
        data = json.dumps(data).encode()
    return parsing.parse(Row(data, "json", "a.jsonl", 1), CONFIG, objective)


@pytest.mark.parametrize(
    ("objective", "fields", "expected"),
    [
        ("pretrain", {"text": "a"}, Text("a")),
        ("sft", {"text": "a"}, Text("a")),
        ("sft", {"prompt": "a", "completion": "b", "text": "c"}, Prompted("a", "b")),
        ("sft", {"prompt": "", "completion": "b"}, Prompted("", "b")),
        ("sft", {"messages": [USER, ASSISTANT]}, Chat((USER, ASSISTANT))),
        ("sft", {"prompt": [USER], "completion": [ASSISTANT]}, Chat((USER, ASSISTANT), 1)),
        ("sft", {"messages": None, "prompt": None, "text": "a"}, Text("a")),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": "c"}, Preference(Prompted("a", "b"), Prompted("a", "c"))),
        (
            "dpo",
            {"prompt": "why?", "chosen": [ASSISTANT], "rejected": [USER]},
            None,
        ),
        (
            "dpo",
            {"chosen": [USER, ASSISTANT], "rejected": [USER, {**ASSISTANT, "content": "no"}]},
            Preference(Chat((USER, ASSISTANT), 1), Chat((USER, {**ASSISTANT, "content": "no"}), 1)),
        ),
        (
            "dpo",
            {"prompt": [USER], "chosen": "so.", "rejected": "no"},
            Preference(Chat((USER, ASSISTANT), 1), Chat((USER, {**ASSISTANT, "content": "no"}), 1)),
        ),
        (
            "sft",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "why?"}]}, ASSISTANT]},
            Chat((USER, ASSISTANT)),
        ),
    ],
)
def test_row_is_what_its_fields_say(objective: Objective, fields: dict[str, Any], expected: Any) -> None:
    if expected is None:
        with pytest.raises(parsing.RowError):
            parse(fields, objective)
    else:
        assert parse(fields, objective) == expected


@pytest.mark.parametrize(
    ("objective", "data", "reason"),
    [
        ("sft", b"", "the line is empty"),
        ("sft", b"   ", "the line is empty"),
        ("sft", b"{", "malformed JSON"),
        ("sft", b"[", "a JSON array instead of one object per line"),
        ("sft", b"[1]", "a list instead of a JSON object"),
        ("sft", b'{"text": "\xff"}', "invalid UTF-8 at byte 10"),
        ("sft", b'{"text": "\\ud800"}', "malformed JSON"),
        ("sft", {}, "it has no fields"),
        ("sft", {"body": "a"}, "it has body"),
        ("sft", {"text": 3}, "text is a number instead of text"),
        ("pretrain", {"text": " \n"}, "text is empty"),
        ("pretrain", {"messages": [USER]}, "there is no field text"),
        ("sft", {"prompt": "a"}, "there is no field completion"),
        ("sft", {"prompt": "a", "completion": ""}, "completion is empty"),
        ("sft", {"messages": []}, "messages is empty"),
        ("sft", {"messages": "hello"}, "messages is text instead of a list of messages"),
        ("sft", {"messages": [USER]}, "no message of the assistant"),
        ("sft", {"messages": [USER, {"role": "assistant", "content": ""}]}, "messages of the assistant are empty"),
        ("sft", {"messages": [{"content": "a"}]}, r"messages\[0\] has no role"),
        ("sft", {"messages": [{"role": "user"}]}, r"messages\[0\] has no content"),
        ("sft", {"messages": ["a"]}, r"messages\[0\] is text instead of a message"),
        ("sft", {"messages": [USER, {"role": "assistant", "content": 3}]}, r"messages\[1\].content is a number"),
        ("sft", {"messages": [USER, ASSISTANT], "tools": "none"}, "tools is no list"),
        ("dpo", {"prompt": "a", "chosen": "b"}, "there is no field rejected"),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": [ASSISTANT]}, "is text and rejected messages"),
    ],
)
def test_row_that_cannot_be_used_says_why(objective: Objective, data: Any, reason: str) -> None:
    with pytest.raises(parsing.RowError, match=reason):
        parse(data, objective)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "messages", "prompt", "chosen"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)
FIELDS = ["text", "messages", "prompt", "completion", "chosen", "rejected", "tools"]


@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
    st.sampled_from(["pretrain", "sft", "dpo"]),
)
def test_row_of_any_values_is_used_or_refused(fields: dict[str, Any], objective: Objective) -> None:
    found = attempt(Row(fields, "fields", "a", 1), objective)
    assert isinstance(found, Text | Prompted | Chat | Preference) or found.message


@given(st.binary(max_size=40), st.sampled_from(["json", "text"]))
def test_row_of_any_bytes_is_used_or_refused(data: bytes, form: Any) -> None:
    found = attempt(Row(data, form, "a", 1), "pretrain")
    assert found.text if isinstance(found, Text) else found.message


def attempt(row: Row, objective: Objective) -> Any:
    """The content, or the error."""
    try:
        return parsing.parse(row, CONFIG, objective)
    except parsing.RowError as e:
        return e
