"""Two reports → what a change costs, as a Markdown table for a comment on a pull request.

The base is a report in JSON, another file or folder, or a revision of git (its files are taken by `git archive`, so
that nothing of the working tree changes).
"""

from __future__ import annotations

import contextlib
import io
import json
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.tokens import report

__all__ = ["at_revision", "is_report", "markdown", "read", "top_of"]

_MOST_ROWS: Final = 50
_GIT_SECONDS: Final = 120


def is_report(base: str) -> bool:
    """Whether it is a file that `-o json` wrote."""
    if not base.endswith(".json") or not Path(base).is_file():
        return False
    try:
        document = json.loads(Path(base).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == report.FORMAT


def read(base: str) -> dict[str, Any]:
    """A report. Raises PricingError if it is none."""
    if not is_report(base):
        raise errors.PricingError(f"{base}: no report of tokens; write one with -o json")
    document: dict[str, Any] = json.loads(Path(base).read_bytes())
    return document


@contextlib.contextmanager
def at_revision(revision: str, paths: Sequence[str]) -> Iterator[tuple[Path, list[str]]]:
    """A temporary folder with the files as they were, and those of the paths that existed. Raises PricingError."""
    if revision.startswith("-"):
        raise errors.PricingError(f"{revision!r} is no revision, file or folder to compare with")
    top = top_of(paths)
    commit = _git(top, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
    wanted = []
    for path in paths:
        whole = Path(path).resolve()
        if not whole.is_relative_to(top):
            raise errors.PricingError(f"{path}: not in the repository {top}, so it has no revision {revision}")
        wanted.append(whole.relative_to(top).as_posix())
    there = [path for path in wanted if _git(top, "ls-tree", "-z", "--name-only", commit, "--", path)]
    with tempfile.TemporaryDirectory() as folder:
        if there:
            data = _git(top, "archive", "--format=zip", "-0", commit, "--", *there)
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                # Links are left out, as in a folder; zipfile itself keeps paths within it.
                archive.extractall(
                    folder, [one for one in archive.infolist() if not stat.S_ISLNK(one.external_attr >> 16)]
                )
        yield Path(folder), there


def top_of(paths: Sequence[str]) -> Path:
    """The repository that the first path is in. Raises PricingError."""
    place = Path(paths[0]).resolve() if paths else Path.cwd()
    place = next((up for up in (place, *place.parents) if up.is_dir()), Path.cwd())
    return Path(_git(place, "rev-parse", "--show-toplevel").decode().strip())


def markdown(before: Mapping[str, Any], after: Mapping[str, Any], base: str) -> str:
    """Files of which the tokens changed, the largest change first, and the cost before and after."""
    old = {row["name"]: row["tokens"] for row in before["items"]}
    new = {row["name"]: row["tokens"] for row in after["items"]}
    changed = [(name, old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)]
    changed.sort(key=lambda row: (-abs((row[2] or 0) - (row[1] or 0)), row[0]))
    lines = [
        f"### Tokens and cost against `{_cell(base)}`",
        "",
        f"| {_cell(after['model'])} | before | after | change |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, was, now in changed[:_MOST_ROWS]:
        lines.append(f"| `{_cell(name)}` | {_number(was)} | {_number(now)} | {_change(was or 0, now or 0)} |")
    if len(changed) > _MOST_ROWS:
        lines.append(f"| and {len(changed) - _MOST_ROWS} more files | | | |")
    was, now = before["total"]["tokens"], after["total"]["tokens"]
    lines.append(f"| **tokens in all** | {was:,} | {now:,} | {_change(was, now)} |")
    lines += _costs(before.get("cost"), after.get("cost"))
    kind = "exact" if after["total"]["exact"] else "estimated"
    lines += ["", f"Counted by {after['total']['tokenizer']} ({kind})." + _prices(after)]
    return "\n".join(lines) + "\n"


def _costs(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Iterator[str]:
    if not after:
        return
    name = f"**cost, {after['currency']}** ({after['level']:.0%} interval)"
    shown = f"{after['middle']:.4g} ({after['low']:.4g} to {after['high']:.4g})"
    if not before or before["currency"] != after["currency"]:
        yield f"| {name} | unknown | {shown} | |"
        return
    was = f"{before['middle']:.4g} ({before['low']:.4g} to {before['high']:.4g})"
    yield f"| {name} | {was} | {shown} | {after['middle'] - before['middle']:+.4g} |"


def _prices(after: Mapping[str, Any]) -> str:
    made = after.get("estimate")
    return f" Prices: {_cell('; '.join(made['prices']))}." if made else ""


def _change(was: int, now: int) -> str:
    share = f" ({(now - was) / was:+.1%})" if was else ""
    return f"{now - was:+,}{share}"


def _number(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def _cell(text: str) -> str:
    """Nothing in it ends the cell or the line."""
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")


def _git(place: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(place), *words], capture_output=True, check=False, timeout=_GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise errors.PricingError(f"git {words[0]} cannot be run: {e}") from e
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:200]
        raise errors.PricingError(
            f"{words[-1].removesuffix('^{commit}')!r} is no report, file, folder or revision of git to compare with"
            + (f": {said}" if said else "")
        )
    return done.stdout
