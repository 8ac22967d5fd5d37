"""Checks the links of every Markdown page: files that are there, headings that exist. It asks no other machine.

Pages outside of our hand (changelogs of dependencies, folders that are built) are not looked at.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    found = [page for page in _pages(root) if page.is_file()]
    wrong = [problem for page in found for problem in _problems(page, root)]
    for problem in wrong:
        print(problem, file=sys.stderr)
    print(f"{len(found)} pages, {len(wrong)} broken links")
    return 1 if wrong else 0


def _pages(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("*.md"))
    for folder in ("docs", "examples", "benchmarks"):
        yield from sorted((root / folder).rglob("*.md"))


def _problems(page: Path, root: Path) -> Iterator[str]:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        linked = page if not path else (page.parent / path).resolve()
        place = page.relative_to(root)
        if not linked.exists():
            yield f"{place}: {target}: there is no such file"
        elif root not in linked.parents and linked != root:
            yield f"{place}: {target}: leaves the project"
        elif anchor and linked.suffix == ".md" and anchor not in _anchors(linked):
            yield f"{place}: {target}: there is no such heading"


def _anchors(page: Path) -> set[str]:
    headings = HEADING.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


if __name__ == "__main__":
    sys.exit(main())
