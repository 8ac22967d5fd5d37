"""What may not be in the repository: hosts of package registries, paths of one machine, secrets, build output."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

HOSTS = ["py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js", "deb.deb" + "ian.org", "proxy.gol" + "ang"]
FOREIGN_PATHS = re.compile(r"(?<![\w.])/(wo" + r"rk|home/\w+|Users/\w+)/[\w.]")
SECRETS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|AKIA[0-9A-Z]{16}")
BUILT = re.compile(r"(^|/)(__pycache__|dist|build|node_modules|\.venv|out)/|\.(pyc|whl|db|sqlite)$")
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def tracked(checkout: Path) -> dict[str, str]:
    """The text of every tracked file, by its path."""
    command = ["git", "ls-files", "-z", "--cached"]
    listing = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    paths = [path for path in listing.split("\0") if path and (checkout / path).is_file()]
    assert len(paths) > 10, "git lists no files, so nothing would be tested"
    return {path: (checkout / path).read_text(encoding="utf-8", errors="replace") for path in paths}


def test_tracked_files_name_no_registry_host(tracked: dict[str, str]) -> None:
    assert [path for path, text in tracked.items() if any(host in text for host in HOSTS)] == []


def test_tracked_files_name_no_path_of_one_machine(tracked: dict[str, str]) -> None:
    assert [f"{path}: {hit.group()}" for path, text in tracked.items() if (hit := FOREIGN_PATHS.search(text))] == []


def test_tracked_files_hold_no_secret(tracked: dict[str, str]) -> None:
    assert [path for path, text in tracked.items() if SECRETS.search(text)] == []


def test_tracked_files_are_sources(tracked: dict[str, str]) -> None:
    assert [path for path, text in tracked.items() if BUILT.search(path) or len(text) > MEGABYTE] == []
