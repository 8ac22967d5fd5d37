"""Which files go along with the code, and which stay behind: patterns in files, in the syntax of .gitignore.

`.mainclude` in the root of the source names the data files that the code reads from beside itself. What a `.maignore`
or a `.gitignore` names is left out of these, and what a `.maignore` names also of the modules that are imported.
Without such files nothing is walked and no library is loaded.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from michelangelo.errors import SourceError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

__all__ = ["SourcePatterns"]

_INCLUDE: Final = ".mainclude"
_IGNORE: Final = ".maignore"
_GIT_IGNORE: Final = ".gitignore"
_NEVER: Final = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules"})
_MAX_WALKED: Final = 200_000


class SourcePatterns:
    """Those that hold for one root. Paths are relative to it, with `/`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._rules = functools.cache(_read)

    def is_ignored(self, name: str) -> bool:
        """Whether a `.maignore` names this file, or a folder that it is in."""
        parts = name.split("/")
        paths = ["/".join(parts[:length]) + "/" for length in range(1, len(parts))]
        return any(self._matches(path, [_IGNORE]) for path in [*paths, name])

    def included(self) -> Iterator[str]:
        """The files that `.mainclude` names and nothing ignores. SourceError when there is too much to look through."""
        wanted = self._rules(os.path.join(self._root, _INCLUDE))
        if wanted is None:
            return
        walked = 0
        for place, folders, files in os.walk(self._root):
            inside = os.path.relpath(place, self._root).replace(os.sep, "/")
            prefix = "" if inside == "." else inside + "/"
            folders[:] = sorted(name for name in folders if not self._is_skipped(place, prefix, name))
            walked += len(files) + len(folders)
            if walked > _MAX_WALKED:
                raise SourceError(
                    f"{self._root} has more than {_MAX_WALKED} files to look through for {_INCLUDE}: name the folders "
                    f"that do not belong to the source in {_IGNORE}"
                )
            for name in files:
                path = prefix + name
                is_wanted = wanted.match_file(path) and not self._matches(path, [_GIT_IGNORE, _IGNORE])
                if is_wanted and os.path.isfile(os.path.join(place, name)):
                    yield path

    def _is_skipped(self, place: str, prefix: str, name: str) -> bool:
        if name in _NEVER or os.path.exists(os.path.join(place, name, "pyvenv.cfg")):
            return True
        return self._matches(f"{prefix}{name}/", [_GIT_IGNORE, _IGNORE])

    def _matches(self, path: str, names: list[str]) -> bool:
        """As Git decides: the last pattern that matches, of the innermost file that has one."""
        decision = False
        full = os.path.join(self._root, path)
        for folder in self._folders(path):
            for name in names:
                rules = self._rules(os.path.join(folder, name))
                if rules is not None:
                    inside = os.path.relpath(full, folder).replace(os.sep, "/") + ("/" if path.endswith("/") else "")
                    found = rules.check_file(inside).include
                    decision = decision if found is None else found
        return decision

    def _folders(self, path: str) -> list[str]:
        """The folders whose patterns concern `path`, from the top of the repository on."""
        parts = path.rstrip("/").split("/")[:-1]
        return [*self._above, *(os.path.join(self._root, *parts[:length]) for length in range(len(parts) + 1))]

    @functools.cached_property
    def _above(self) -> list[str]:
        """The folders above the root, up to the one that is a Git repository; none without one."""
        found: list[str] = []
        folder = self._root
        while not os.path.exists(os.path.join(folder, ".git")):
            parent = os.path.dirname(folder)
            if parent == folder:
                return []
            folder = parent
            found.insert(0, folder)
        return found


def _read(path: str) -> GitIgnoreSpec | None:
    """None where there is no such file. SourceError when it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    # Only who has such a file pays for its parser.
    pathspec = importlib.import_module("pathspec")
    try:
        return cast("GitIgnoreSpec", pathspec.GitIgnoreSpec.from_lines(lines))
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error
