"""The documentation covers what there is: every kind has its page, every verb of the command line its section."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from michelangelo.api.v2 import registry
from michelangelo.cli import verbs


@pytest.mark.parametrize("kind", sorted(registry.KINDS))
def test_kind_has_a_page(checkout: Path, kind: str) -> None:
    page = _docs(checkout) / "kinds" / f"{registry.get(kind).module}.md"
    assert page.exists()
    assert kind in page.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("verb", sorted(verbs.VERBS))
def test_verb_is_documented(checkout: Path, verb: str) -> None:
    page = (_docs(checkout) / "cli.md").read_text(encoding="utf-8")
    assert re.search(rf"^#+ .*`mactl {re.escape(verb)}", page, flags=re.MULTILINE)


def _docs(checkout: Path) -> Path:
    docs = checkout / "docs"
    if not (docs / "kinds").exists():
        pytest.skip("docs/kinds is not written yet")
    return docs
