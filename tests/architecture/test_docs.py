"""The documentation covers what there is: every kind, every verb of the command line, every setting."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from michelangelo.api.v2 import registry
from michelangelo.app.settings import Settings
from michelangelo.cli import kind_names, verbs

KIND_VERBS = [
    f"{kind_names.snake_case(registry.get(kind))} {verb}"
    for kind, own in verbs.KIND_VERBS.items()
    for verb in own
    if verb not in verbs.VERBS or (kind, verb) == ("Pipeline", "apply")
]
SETTINGS = [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize("kind", sorted(registry.KINDS))
def test_kind_has_a_page(checkout: Path, kind: str) -> None:
    page = checkout / "docs" / "kinds" / f"{registry.get(kind).module}.md"
    assert kind in page.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("verb", [*verbs.VERBS, *KIND_VERBS])
def test_verb_is_documented(checkout: Path, verb: str) -> None:
    page = (checkout / "docs" / "cli.md").read_text(encoding="utf-8")
    assert re.search(rf"^#+ .*`mactl {re.escape(verb)}\b", page, flags=re.MULTILINE)


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_documented(checkout: Path, name: str) -> None:
    variable = "NO_COLOR" if name == "no_color" else f"MA_{name.upper()}"
    pages = [page.read_text(encoding="utf-8") for page in (checkout / "docs").rglob("*.md")]
    assert any(f"`{variable}`" in page for page in pages)
