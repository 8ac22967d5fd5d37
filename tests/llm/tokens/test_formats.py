"""Chats, images and templates, against what the vendors publish as examples, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from michelangelo import errors
from michelangelo.llm.tokens import chats, images, templates, tokenizers

COOKBOOK = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates "
        "corporate jargon into plain English.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "New synergies will help drive top-line growth.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base "
        "on opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4-0613", 129), ("gpt-4o", 124)])
def test_a_chat_has_what_the_api_reported(model: str, tokens: int) -> None:
    """Messages and counts of OpenAI's cookbook, "How to count tokens with tiktoken"."""
    made = chats.count(COOKBOOK, model)
    assert (made.tokens, made.is_exact) == (tokens, True)


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4", 105), ("gpt-4o", 101)])
def test_tools_have_what_the_api_reported(model: str, tokens: int) -> None:
    """Likewise, its section on functions."""
    location = "The city and state, e.g. San Francisco, CA"
    unit = {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]}
    tool = {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string", "description": location}, "unit": unit},
                "required": ["location"],
            },
        },
    }
    messages = [
        {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
        {"role": "user", "content": "What's the weather like in San Francisco?"},
    ]
    assert chats.count(messages, model, tools=[tool]).tokens == tokens


def test_the_llama_format_is_counted_token_for_token() -> None:
    count = tokenizers.load("llama3").count_exact
    made = chats.count(
        [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi"}], "llama-3.1-8b"
    )
    # <begin>, then three times <header> role <end of header> \n\n text, with <end of turn> after two of them.
    texts = ("system", "\n\nBe brief.", "user", "\n\nHi", "assistant", "\n\n")
    assert made.tokens == 1 + 3 * 2 + 2 + sum(map(count, texts))
    assert made.is_exact


def test_tools_of_claude_add_their_system_prompt() -> None:
    messages = [{"role": "user", "content": "hello"}]
    plain = chats.count(messages, "claude-sonnet-4-5")
    tools = chats.count(messages, "claude-sonnet-4-5", tools=[{"name": "f", "input_schema": {"type": "object"}}])
    assert tools.tokens - plain.tokens > 346
    assert not tools.is_exact


def test_a_picture_in_a_message_is_counted() -> None:
    parts = [{"type": "text", "text": "hello"}, {"type": "image", "size": "1024x1024"}]
    made = chats.count([{"role": "user", "content": parts}], "gpt-4o")
    assert made.tokens == chats.count([{"role": "user", "content": "hello"}], "gpt-4o").tokens + 765


def test_wrong_messages_are_said_all_at_once() -> None:
    messages: list[Any] = ["x", {"role": "king", "content": 3}, {"role": "user", "content": [{"type": "image"}]}]
    with pytest.raises(errors.PricingError) as caught:
        chats.count(messages, "gpt-4o", tools=[{}])
    for text in ("[0] is no object", "[1].role", "[1].content", "[2].content[0]", "tools[0].name"):
        assert text in caught.value.message


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("gpt-4o", "1024x1024", 765),
        ("gpt-4o", "2048x4096", 1105),
        ("gpt-4o-mini", "512x512", 2833 + 5667),
        ("gpt-4.1-mini", "1024x1024", 1659),
        ("gpt-4.1-mini", "1800x2400", 2353),
        ("claude-sonnet-4-5", "200x200", 54),
        ("claude-sonnet-4-5", "1000x1000", 1334),
        ("claude-sonnet-4-5", "1092x1092", 1590),
        ("gemini-2.5-flash", "384x384", 258),
        ("gemini-2.5-flash", "1500x700", 516),
    ],
)
def test_an_image_has_the_tokens_of_the_vendors_examples(model: str, size: str, tokens: int) -> None:
    assert images.count(model, *images.size_of(size)) == tokens


def test_a_file_has_the_tokens_of_its_size(tmp_path: Path) -> None:
    Image.new("RGB", (2048, 4096)).save(tmp_path / "a.png")
    assert images.size_of(str(tmp_path / "a.png")) == (2048, 4096)
    assert images.count("gpt-4o", 2048, 4096, detail="low") == 85


@pytest.mark.parametrize("image", ["0x10", "999999x1", "none.png", "10x"])
def test_an_image_that_cannot_be_is_refused(image: str) -> None:
    with pytest.raises(errors.PricingError):
        images.size_of(image)


def test_a_model_without_a_rule_for_images_is_refused() -> None:
    with pytest.raises(errors.PricingError, match="no public rule"):
        images.count("llama-4-scout", 10, 10)


def test_holes_of_an_fstring_are_listed_and_filled() -> None:
    prompt = templates.of_fstring('f"Summarise {document.text} in {n} words"')
    assert [hole.name for hole in prompt.holes] == ["document.text", "n"]
    assumed = templates.count(prompt, "gpt-4o", values={}, assumed=50)
    filled = templates.count(prompt, "gpt-4o", values={"document.text": "hello world", "n": "5"}, assumed=50)
    expected = tokenizers.load("o200k_base").count_exact("Summarise hello world in 5 words")
    assert (filled.tokens, filled.is_exact) == (expected, True)
    assert assumed.tokens > 100
    assert not assumed.is_exact


def test_prompts_are_found_in_python_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(
        'raise SystemExit("this ran")\n'
        'A = f"Answer the question {q} briefly"\nB = "Say hello to {{ name }} now"\nC = f"{x}"\n'
    )
    assert [(p.kind, [h.name for h in p.holes]) for p in templates.find(str(path))] == [
        ("f-string", ["q"]),
        ("Jinja", ["name"]),
    ]


def test_template_errors_say_the_line() -> None:
    with pytest.raises(errors.PricingError, match="t:2: no Jinja"):
        templates.of_jinja("a\n{% if %}", "t")
    with pytest.raises(errors.PricingError, match="no Jinja"):
        templates.compiled("{{ a")
    with pytest.raises(errors.PricingError, match="no f-string"):
        templates.of_fstring("'x'")
    with pytest.raises(ValueError, match="cannot be filled"):
        templates.render(templates.compiled("{{ missing }}"), {"a": 1})
    with pytest.raises(ValueError, match="cannot be filled"):
        templates.render(templates.compiled("{{ a.__class__.__mro__[1].__subclasses__() }}"), {"a": 1})
