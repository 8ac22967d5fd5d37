"""Every example in the documentation runs: Python programs, console lines, manifests. Links lead somewhere.

A ```python block is a whole program; the ```console blocks of a page are a shell script; in a ```console server
block the line `mactl serve &` starts a real server on a free port; a ```yaml block that has a kind is valid for it.
What takes more than some seconds says so (```console slow, ```python slow) and runs with the slow tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.mactl_server import serving

from michelangelo.api.v2 import registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|<img src=\"(?P<image>[^\"]+)\"")
DEADLINE_SECONDS = 120


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    info: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match["info"].split(" ")[0] == language:
                found.append(Block(page, text.count("\n", 0, match.start()) + 1, match["info"], match["text"]))
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user's environment with a home of its own, and this checkout's programs."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": programs, "HOME": str(tmp_path), "MA_HOME": str(tmp_path / ".ma"), "MA_PORT": "0", "NO_COLOR": "1"}


def cases(found: list[Block]) -> list[Any]:
    return [
        pytest.param(block, id=block.id, marks=pytest.mark.slow if block.info.endswith(" slow") else ())
        for block in found
    ]


@pytest.mark.parametrize("block", cases(blocks("python")))
def test_program_runs(block: Block, tmp_path: Path, environment: dict[str, str]) -> None:
    program = tmp_path / "pipeline.py"
    program.write_text(block.text)
    done = run([sys.executable, str(program)], tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def scripts() -> list[Block]:
    """The plain console blocks of a page are one script, in order; one with a server is a script of its own."""
    found: list[Block] = []
    for block in blocks("console"):
        last = found[-1] if found else None
        if last is not None and last.page == block.page and last.info == block.info and "server" not in block.info:
            found[-1] = replace(last, text=last.text + block.text)
        else:
            found.append(block)
    return found


@pytest.mark.parametrize("block", cases(scripts()))
def test_console_lines_run(block: Block, tmp_path: Path, environment: dict[str, str]) -> None:
    lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    assert lines, "a console block without a line that starts with `$ `"
    with contextlib.ExitStack() as stack:
        if "server" in block.info.split(" "):
            lines.remove("mactl serve &")
            stack.enter_context(serving(tmp_path, environment))
        script = "set -eux -o pipefail\n" + "\n".join(lines)
        done = run(["bash", "-c", script], tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.id)
def test_manifest_is_valid(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        if "kind" in document:
            checked = registry.get(document["kind"]).model.check(document)
            assert (list(checked.errors), list(checked.unknown)) == ([], [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        target = match["target"] or match["image"]
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: there is no {file.relative_to(ROOT)}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}: {file.relative_to(ROOT)} has no such heading"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
