"""The page about data: its configurations are valid, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from michelangelo.llm.finetune.config import DataConfig
from michelangelo.llm.finetune.data import locations, report


def test_configurations_on_the_page_are_valid(checkout: Path) -> None:
    page = (checkout / "docs" / "llm" / "data.md").read_text()
    found = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)]
    assert found
    assert all(DataConfig.model_validate(document["data"]) for document in found)


def test_page_names_what_the_code_knows(checkout: Path) -> None:
    page = (checkout / "docs" / "llm" / "data.md").read_text()
    endings = re.findall(r"\.\w+", locations.describe_formats())
    assert [ending for ending in endings if f"`{ending}`" not in page] == []
    unnamed = [name for name in DataConfig.model_fields if f"`{name}" not in page and f"  {name}:" not in page]
    assert unnamed == ["prompt_field", "completion_field", "chosen_field", "rejected_field"]
    assert f"the first {report.MAX_LISTED} listed" in page
