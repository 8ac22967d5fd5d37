"""Where in the user's code a step was called: the stable part of a step's identity.

A call site is the chain of frames from the workflow function down to the call, each as qualified name, line relative to
the function's first line, and column. So two calls on one line differ, a helper that is called from two places gives
two sites, and an edit above the function changes nothing. Frames of this package and of the standard library are left
out. It reads frames; it counts nothing and knows no step (engine/replay.py does).
"""

from __future__ import annotations

import itertools
import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass
from types import CodeType, FrameType

import michelangelo
from michelangelo import errors

__all__ = ["CallSite", "find"]

_PACKAGE = os.path.dirname(os.path.abspath(michelangelo.__file__)) + os.sep
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})


@dataclass(frozen=True, slots=True)
class CallSite:
    """`path` identifies the site inside its scope; `file` and `line` are those of the innermost frame of the user."""

    path: str
    file: str
    line: int
    function: str

    def location(self) -> errors.CodeLocation:
        """For messages: with the line's source, read when asked for."""
        source = linecache.getline(self.file, self.line).strip()
        return errors.CodeLocation(self.file, self.line, self.function, source)


# Keyed by the id of a code object, which the value keeps alive: hashing a code object itself costs microseconds.
_foreign: dict[int, tuple[CodeType, bool]] = {}
_positions: dict[tuple[int, int], tuple[CodeType, int, str]] = {}


def find(outermost: CodeType) -> CallSite:
    """The site of the innermost call that leads here, up to and including the nearest frame that runs `outermost`,
    or, if that was replaced by a wrapper, up to the frame of this package that called it."""
    frames: list[str] = []
    innermost: tuple[CodeType, int] | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not _is_foreign(code):
            line, text = _position(code, frame.f_lasti)
            frames.append(text)
            innermost = innermost or (code, line)
            if code is outermost:
                break
        elif innermost is not None and code.co_filename.startswith(_PACKAGE):
            break
        frame = frame.f_back
    if innermost is None:
        return CallSite("?", "", 0, "")
    code, line = innermost
    return CallSite(">".join(reversed(frames)), code.co_filename, line, code.co_qualname)


def _is_foreign(code: CodeType) -> bool:
    known = _foreign.get(id(code))
    if known is None:
        file = code.co_filename
        ours = file.startswith((_PACKAGE, "<frozen"))
        foreign = ours or (file.startswith(_STDLIB) and not file.startswith(_INSTALLED))
        known = _foreign[id(code)] = (code, foreign)
    return known[1]


def _position(code: CodeType, instruction: int) -> tuple[int, str]:
    """The absolute line of an instruction, and the frame's part of the path."""
    key = (id(code), instruction)
    known = _positions.get(key)
    if known is None:
        position = next(itertools.islice(code.co_positions(), instruction // 2, None), (None, None, None, None))
        line, column = position[0] or code.co_firstlineno, position[2] or 0
        text = f"{code.co_qualname}@{line - code.co_firstlineno}:{column}"
        known = _positions[key] = (code, line, text)
    return known[1], known[2]
