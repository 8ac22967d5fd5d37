"""The picture on docs/graph.md is what the command draws of the page's program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from michelangelo.cli import main as program


def test_picture_of_the_graph_is_current(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (checkout / "docs" / "graph.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "pipeline.py").write_text(found[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        program.main(["pipeline", "graph", "pipeline.py", "--out", "graph.svg"])
    assert ended.value.code == 0
    drawn = (tmp_path / "graph.svg").read_text(encoding="utf-8")
    picture = checkout / "docs" / "images" / "graph.svg"
    assert drawn == picture.read_text(encoding="utf-8"), f"draw {picture} anew, as the page says"
