"""Chat templates: the assistant's part is found exactly, whichever way the template shows it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from michelangelo import errors
from michelangelo.llm.finetune.data.chat import ChatRenderer
from michelangelo.llm.finetune.data.parsing import Chat, RowError

GENERATION = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PLAIN = GENERATION.replace("{% generation %}", "").replace("{% endgeneration %}", "")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}"
    "{% else %}{{ raise_exception('no system here') }}{% endif %}{% endfor %}"
)
"""The beginning of a conversation is rendered as in the whole."""
LAST_TURN_DIFFERS = (
    "{% for m in messages %}[{{ m.role }}] {% if loop.last %}FINAL {% endif %}{{ m.content | trim }}"
    "{% if loop.last %}{{ eos_token }}{% else %};{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
"""It is not: only marks show what the assistant said."""
WITHOUT_HISTORY = "{{ messages[-1].content }}{% for m in messages %}{{ m.content[:1] }}{% endfor %}"


def said(tokenizer: PreTrainedTokenizerBase, template: str, *contents: str, given: int = 0) -> list[str]:
    roles = itertools.cycle(["user", "assistant"])
    messages = tuple({"role": role, "content": content} for content, role in zip(contents, roles, strict=False))
    rendered = ChatRenderer(tokenizer, template).render(Chat(messages, given))
    return [rendered.text[start:stop] for start, stop in rendered.spans]


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (GENERATION, "{}</s>"),
        (PLAIN, "{}</s>"),
        (CHATML, "{}<|im_end|>\n"),
        (INSTRUCT, " {} </s>"),
    ],
)
def test_every_answer_is_found_with_what_ends_it(tokenizer: PreTrainedTokenizerBase, template: str, ends: str) -> None:
    expected = [ends.format("blue"), ends.format("red")]
    assert said(tokenizer, template, "sky?", "blue", "blood?", "red") == expected
    assert said(tokenizer, template, "sky?", "blue", "blood?", "red", given=3) == expected[1:]


def test_answers_are_found_where_the_last_turn_is_rendered_otherwise(tokenizer: PreTrainedTokenizerBase) -> None:
    assert said(tokenizer, LAST_TURN_DIFFERS, "sky?", "blue", "blood?", "red") == ["blue", "red</s>"]


def test_template_that_hides_who_said_what_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(RowError, match="does not show which part"):
        said(tokenizer, WITHOUT_HISTORY, "sky?", "blue")


def test_template_that_refuses_a_conversation_refuses_the_row(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(RowError, match="no system here"):
        ChatRenderer(tokenizer, INSTRUCT).render(
            Chat(({"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}))
        )


def test_template_may_be_a_file(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text(CHATML)
    assert said(tokenizer, str(tmp_path / "chat.jinja"), "a", "b") == ["b<|im_end|>\n"]
    with pytest.raises(errors.DatasetError, match="neither a template nor a file"):
        ChatRenderer(tokenizer, str(tmp_path / "none.jinja"))


def test_malformed_template_is_refused_at_once(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(errors.DatasetError, match="malformed"):
        ChatRenderer(tokenizer, "{% for %}")


def test_tools_reach_the_template(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{{ tools[0].name }}:" + PLAIN
    messages: Any = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    assert ChatRenderer(tokenizer, template).render(Chat(messages, tools=({"name": "add"},))).text.startswith("add:")


CONTENT = st.text(alphabet=st.sampled_from("ab <|>\n[]/Nusertian{}%é"), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=60)
@given(st.lists(CONTENT, min_size=2, max_size=6))
def test_ways_of_finding_answers_agree(tokenizer: PreTrainedTokenizerBase, contents: list[str]) -> None:
    contents = contents[: len(contents) // 2 * 2]
    expected = [content + "</s>" for content in contents[1::2]]
    assert said(tokenizer, GENERATION, *contents) == expected
    assert said(tokenizer, PLAIN, *contents) == expected
    messages = tuple(
        {"role": role, "content": content}
        for content, role in zip(contents, itertools.cycle(["user", "assistant"]), strict=False)
    )
    renderer = ChatRenderer(tokenizer, PLAIN)
    text = renderer.render(Chat(messages)).text
    by_marks = renderer._by_marks(Chat(messages), text)
    assert [text[start:stop] for start, stop in by_marks] == expected
